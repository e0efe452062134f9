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
	repositories  []string // by id
	organizations bool
	expires       time.Time
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

// opens reports whether a token lets its holder at the runners of a scope. nil stands
// for the credential that may do all.
func (g *grant) opens(in scope) bool {
	switch {
	case g == nil:
		return true
	case in.org.ID != "":
		return g.organizations
	}
	return slices.Contains(g.repositories, in.repo.ID)
}

// token makes an installation token for the App that proves itself: to administer one
// repository, or for the runners of organizations. GitHub would make one that opens
// everything, too; a client that asks for it is wrong.
func (s *Server) token(now time.Time, t target, r *http.Request, proof string, body []byte) answer {
	if !s.rules.App.proves(now, proof) {
		return refuse(http.StatusUnauthorized, "A JSON web token could not be decoded", nil)
	}
	if t.id != s.rules.App.Installation {
		return refuse(http.StatusNotFound, "Not Found", nil)
	}
	ids, permissions, wrong := parseToken(body)
	if wrong != "" {
		return s.wrong(http.StatusUnprocessableEntity, r, wrong)
	}
	g, selection := &grant{organizations: len(ids) == 0, expires: now.Add(time.Hour).Truncate(time.Second)}, "all"
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
	organizations := permissions["organization_self_hosted_runners"] == "write"
	switch {
	case wrong != "":
	case len(permissions) != 1 || !organizations && permissions["administration"] != "write":
		wrong = "body: want to administer, or runners of organizations, and no other permission"
	case organizations && len(ids) != 0:
		wrong = "body: want no repository for the runners of organizations"
	case !organizations && len(ids) != 1:
		wrong = "body: want a token for one repository"
	}
	return ids, permissions, wrong
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
