package simgithub

import (
	"crypto"
	"crypto/rsa"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"
)

// App is a GitHub App with one installation, in all of the Repositories and
// Organizations. Its
// tokens live an hour and are gone with the process.
type App struct {
	ID, Installation int64
	Key              *rsa.PublicKey // of the key that it proves itself with
}

// grant is what an installation token may do.
type grant struct {
	repositories []string // by id; nil: all
	right        string   // the one permission
	expires      time.Time
}

// RevokeTokens ends all installation tokens.
func (s *Server) RevokeTokens() {
	s.look(func(time.Time) { clear(s.grants) })
}

// granted returns what a token of the App may do; nil: it is none, or over.
func (s *Server) granted(now time.Time, token string) *grant {
	g := s.grants[token]
	if g == nil || !now.Before(g.expires) {
		return nil
	}
	return g
}

// opens reports whether a token lets its holder make a call in a scope. nil stands
// for the credential that may do all.
func (g *grant) opens(in scope, op string) bool {
	if g == nil {
		return true
	}
	want := []string{"administration: write"}
	switch op {
	case OpRun, OpRuns, OpRunJobs, OpJob:
		want = []string{"actions: read", "actions: write"}
	case OpCancel:
		want = []string{"actions: write"}
	}
	if in.org.ID != "" {
		want = []string{"organization_self_hosted_runners: write"}
	}
	return slices.Contains(want, g.right) && (g.repositories == nil || slices.Contains(g.repositories, in.repo.ID))
}

// asApp is what a Server answers to the App itself.
type asApp struct{ *Server }

// serve answers what the App asks for, which proves that it is.
func (s asApp) serve(now time.Time, t target, r *http.Request, h http.Header, proof string, body []byte) answer {
	switch {
	case !s.rules.App.proves(now, proof):
		return refuse(http.StatusUnauthorized, "A JSON web token could not be decoded", nil)
	case t.op == OpDeliveries:
		return s.listDeliveries(now, r, h)
	}
	return s.token(now, t, r, body)
}

// token makes an installation token with one permission.
// GitHub would make one that opens everything, too; a client that asks for it is wrong.
func (s asApp) token(now time.Time, t target, r *http.Request, body []byte) answer {
	if t.id != s.rules.App.Installation {
		return refuse(http.StatusNotFound, "Not Found", nil)
	}
	ids, permissions, wrong := parseToken(body)
	if wrong != "" {
		return s.wrong(http.StatusUnprocessableEntity, r, wrong)
	}
	g, selection := &grant{right: rightIn(permissions), expires: now.Add(time.Hour).Truncate(time.Second)}, "all"
	for _, number := range ids {
		id := strconv.FormatInt(number, 10)
		if _, ok := s.names.exists(id, true); !ok {
			return refuse(http.StatusUnprocessableEntity, "There is at least one repository that does not exist or is not accessible to the parent installation.", nil)
		}
		g.repositories, selection = []string{id}, "selected"
	}
	random := make([]byte, 18) // 36 hex digits: GitHub's have 36 characters
	if _, err := io.ReadFull(s.cfg.Random, random); err != nil {
		return refuse(http.StatusInternalServerError, "Server Error", nil)
	}
	for old, former := range s.grants {
		if !now.Before(former.expires) {
			delete(s.grants, old)
		}
	}
	token := fmt.Sprintf("ghs_%x", random)
	s.grants[token] = g
	permissions["metadata"] = "read"
	return answer{http.StatusCreated, map[string]any{
		"token":                token,
		"expires_at":           g.expires.UTC().Format(time.RFC3339),
		"permissions":          permissions,
		"repository_selection": selection,
	}}
}

// parseToken reads the body of a call for a token, and takes nothing that opens more than
// a client of ours needs.
func parseToken(body []byte) (ids []int64, permissions map[string]string, wrong string) {
	permissions = map[string]string{}
	wrong = parseObject(body, map[string]any{"repository_ids": &ids, "permissions": &permissions}, "permissions")
	right := rightIn(permissions)
	narrow, known := map[string]bool{
		"administration: write": true, "actions: write": true, "actions: read": false, "organization_self_hosted_runners: write": false,
	}[right]
	switch {
	case wrong != "":
	case !known:
		wrong = "body: want one permission, of those that calls of ours take"
	case !narrow && len(ids) != 0:
		wrong = "body: want no repository for " + right
	case narrow && len(ids) != 1:
		wrong = "body: want a token for one repository"
	}
	return ids, permissions, wrong
}

// rightIn returns the one permission that a token has; empty: it has not one.
func rightIn(permissions map[string]string) (right string) {
	for name, level := range permissions {
		right = name + ": " + level
	}
	if len(permissions) != 1 {
		return ""
	}
	return right
}

// proves reports whether a JSON web token is one of the App's that GitHub takes.
func (a App) proves(now time.Time, proof string) bool {
	parts := strings.Split(proof, ".")
	if len(parts) != 3 || a.Key == nil {
		return false
	}
	var header struct{ Alg, Typ string }
	var claims struct {
		Iat, Exp int64
		Iss      string
	}
	signature, err := base64.RawURLEncoding.DecodeString(parts[2])
	if err != nil || !decode(parts[0], &header) || !decode(parts[1], &claims) || header.Alg != "RS256" {
		return false
	}
	sum := sha256.Sum256([]byte(parts[0] + "." + parts[1]))
	issued, expires := time.Unix(claims.Iat, 0), time.Unix(claims.Exp, 0)
	return rsa.VerifyPKCS1v15(a.Key, crypto.SHA256, sum[:], signature) == nil &&
		claims.Iss == strconv.FormatInt(a.ID, 10) &&
		!issued.After(now) && expires.After(now) && !expires.After(now.Add(10*time.Minute))
}

// decode reads a part of a JSON web token.
func decode(part string, into any) bool {
	b, err := base64.RawURLEncoding.DecodeString(part)
	return err == nil && json.Unmarshal(b, into) == nil
}
