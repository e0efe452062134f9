package local

import (
	"encoding/json"
	"net/http"
	"strings"
)

// Handler returns the API and, beside it, POST /local/reap[?dry_run=true], which
// runs the reaper and answers with its report: for the operator's token alone.
func (s *System) Handler() http.Handler {
	mux := http.NewServeMux()
	mux.Handle("/", s.api)
	mux.HandleFunc("POST /local/reap", func(w http.ResponseWriter, r *http.Request) {
		token, _ := strings.CutPrefix(r.Header.Get("Authorization"), "Bearer ")
		if !s.Token.Equal(token) {
			http.Error(w, "this needs the operator's token", http.StatusUnauthorized)
			return
		}
		report, err := s.Reap(r.Context(), r.URL.Query().Get("dry_run") == "true")
		if err != nil {
			s.cfg.Log.Warn("reaper", "error", err) // the report tells of it
		}
		w.Header().Set("Content-Type", "application/json")
		w.Header().Set("Cache-Control", "no-store")
		_ = json.NewEncoder(w).Encode(report) // the client has gone; the run is done all the same
	})
	return mux
}
