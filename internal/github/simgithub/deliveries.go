package simgithub

import (
	"cmp"
	"fmt"
	"net/http"
	"slices"
	"strconv"
	"time"
)

// Delivery is one try to deliver a webhook of the App.
type Delivery struct {
	ID            int64 // given out by Deliver
	At            time.Time
	Code          int // that was answered; 0: nothing
	Event, Action string
	Repository    string // its id; empty: none
}

// deliveriesKept is how long GitHub keeps the log of an App's deliveries
// (https://docs.github.com/en/webhooks/testing-and-troubleshooting-webhooks/viewing-webhook-deliveries).
const deliveriesKept = 3 * 24 * time.Hour

// Deliver notes a try to deliver a webhook in the App's log, and returns its id.
func (s *Server) Deliver(d Delivery) (id int64) {
	s.look(func(now time.Time) {
		d.ID, d.At = s.id(), now
		s.delivered = append(s.delivered, d)
		id = d.ID
	})
	return id
}

// listDeliveries answers with a page of the App's log, the newest first.
func (s asApp) listDeliveries(now time.Time, r *http.Request, h http.Header) answer {
	s.delivered = slices.DeleteFunc(s.delivered, func(d Delivery) bool { return now.Sub(d.At) >= deliveriesKept })
	p, wrong := parsePage(r, "cursor")
	before, err := strconv.ParseInt(cmp.Or(r.URL.Query().Get("cursor"), "0"), 10, 64)
	if wrong != "" || err != nil || p.number != 1 {
		return s.wrong(http.StatusUnprocessableEntity, r, cmp.Or(wrong, "query: want a cursor of the page before, and no number"))
	}
	out := []map[string]any{}
	for _, d := range slices.Backward(s.delivered) {
		if before != 0 && d.ID > before {
			continue
		}
		if len(out) == p.perPage {
			h.Set("Link", fmt.Sprintf("<%s/app/hook/deliveries?per_page=%d&cursor=%d>; rel=\"next\"", base(r), p.perPage, d.ID))
			break
		}
		repository, _ := strconv.ParseInt(d.Repository, 10, 64)
		out = append(out, map[string]any{
			"id": d.ID, "guid": fmt.Sprintf("00000000-0000-0000-0000-%012d", d.ID), "delivered_at": stamp(d.At), "redelivery": false, "duration": 0.1,
			"status": http.StatusText(d.Code), "status_code": d.Code, "event": d.Event, "action": orNil(d.Action),
			"installation_id": orNil(s.rules.App.Installation), "repository_id": orNil(repository), "throttled_at": nil,
		})
	}
	return answer{http.StatusOK, out}
}
