// Package api is GARO's front door: it authenticates, authorises, records,
// enqueues and answers, and takes the calls of the machines.
//
// It promises that nothing is accepted without a record, that a call which is
// repeated finds what the first one made, and that who may not see a thing
// cannot tell that it exists. It decides nothing about runners itself: the rules
// are in package store, and a call reads items, asks a rule, commits and answers.
// It reaches neither EC2 nor GitHub.
//
// Every decision whether a caller may, yes or no, is one audit line: the line of
// its call. Tokens are in it as SHA-256; bodies and headers are never logged.
package api

import (
	"context"
	"crypto/rand"
	_ "embed"
	"io"
	"io/fs"
	"log/slog"
	"net/http"
	"time"

	"github.com/alphagov/github-actions-runner-orchestration/client/apitype"
	"github.com/alphagov/github-actions-runner-orchestration/internal/aws/identity"
	"github.com/alphagov/github-actions-runner-orchestration/internal/intake"
	"github.com/alphagov/github-actions-runner-orchestration/internal/keys"
	"github.com/alphagov/github-actions-runner-orchestration/internal/queue"
	"github.com/alphagov/github-actions-runner-orchestration/internal/secret"
	"github.com/alphagov/github-actions-runner-orchestration/store"
)

// Config is what the API is made of. The fields up to URL are needed.
type Config struct {
	Store    store.Store
	Queue    queue.Sender
	Accounts store.Accounts
	Keys     *keys.Ring
	Limits   store.Limits
	Auth     Authenticator
	// Identity says whose word for a machine counts. The zero value believes nobody, and
	// then no machine boots.
	Identity identity.Trust
	// URL is the API's public base URL, without a slash at its end.
	URL string

	// AppSecrets returns what a GitHub App signs its webhooks with: one secret, or two while
	// one replaces the other. Nil: there is no App, and registrations alone have secrets.
	AppSecrets func(context.Context) ([]secret.Text, error)

	// Programs has GitHub's runner program by GOARCH, for machines whose image has
	// none. Nil: every image has it.
	Programs map[string]apitype.RunnerProgram
	// Script reads the set-up script at a path of SSM, of at most store.MaxLongScript
	// bytes; one that is not there has none. An error is an outage. Nil: there are none.
	Script func(ctx context.Context, path string) ([]byte, error)
	// Agents has the agent's programs as <arch>/<sha256>.gz. Nil: there are none.
	Agents fs.FS

	Now    func() time.Time // nil: time.Now
	Random io.Reader        // nil: crypto/rand.Reader; safe for concurrent use
	Log    *slog.Logger     // nil: none
}

type server struct {
	Config
	intake     intake.Intake
	mux        *http.ServeMux
	programKey string // of Programs
	machines   *limiter
}

// New returns the handler of all calls. It is safe for concurrent use, and leaves no
// goroutine behind. Between calls it keeps what makes refusals cheap, and nothing that
// is not decided by the records too.
func New(cfg Config) http.Handler {
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	if cfg.Random == nil {
		cfg.Random = rand.Reader
	}
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	sums := map[string]string{}
	for arch, p := range cfg.Programs {
		sums[arch] = p.SHA256
	}
	s := &server{
		Config: cfg, mux: http.NewServeMux(), programKey: store.ProgramKey(sums),
		machines: newLimiter(cfg.Limits, cfg.Now),
		intake:   intake.Intake{Accounts: cfg.Accounts, Keys: cfg.Keys, Limits: cfg.Limits, Open: intake.NewGauge(cfg.Store, cfg.Now)},
	}
	for _, r := range s.routes() {
		s.mux.Handle(r.pattern, r.handler)
	}
	return s
}

type route struct {
	pattern string
	handler http.Handler
}

func (s *server) routes() []route {
	return []route{
		{"POST /start", handle(s, s.start)},
		{"GET /status/{id}", handle(s, s.status)},
		{"POST /stop/{id}", handle(s, s.stop, "force")},
		{"GET /requests", handle(s, s.requests, "repository", "state", "failed", "account", "region", "since", "after")},
		{"GET /runners", handle(s, s.runners, "repository", "state", "live", "account", "region", "since", "after")},
		{"GET /runners/{id}", handle(s, s.oneRunner)},
		{"GET /find", handle(s, s.find, "q")},
		{"GET /usage", handle(s, func(ctx context.Context, c *call, _ none) (apitype.Usage, error) { return usage(ctx, s, c) }, "from", "to", "by", "repository")},
		{"POST /sweeps/{account}/{region}/release", handle(s, s.release)},

		{"GET /health", handle(s, func(ctx context.Context, c *call, _ none) (apitype.ReaperHealth, error) { return reaperHealth(ctx, c) })},
		{"POST /checks", handle(s, checks{s}.start)},
		{"GET /checks/{id}", handle(s, checks{s}.status)},

		{"POST /github/webhook", handle(s, s.webhook)},

		{"POST /runners/{id}/boot", handle(s, s.boot)},
		{"POST /runners/{id}/events", handle(s, s.event)},
		{"POST /runners/{id}/next", handle(s, s.next)},
		{"POST /runners/{id}/admission", handle(s, s.admission)},
		{"GET /agent/linux/{arch}/{sha256}", handle(s, s.agent)},

		{"GET /{$}", handle(s, s.page)},
		{"GET /page/{file}", handle(s, s.page)},
		{"GET /healthz", handle(s, s.health)},
		{"GET /openapi.yaml", handle(s, s.openapi)},
	}
}

// OpenAPI is the contract of the API, as GET /openapi.yaml answers it.
//
//go:embed openapi.yaml
var OpenAPI []byte

// ServeHTTP implements http.Handler. What no route takes is answered as a
// problem too, and never with a redirect.
func (s *server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("Cache-Control", "no-store")
	w.Header().Set("X-Content-Type-Options", "nosniff")
	h, pattern := s.mux.Handler(r)
	if pattern == "" || !canonical(r.URL.Path) {
		handle(s, unrouted(h)).ServeHTTP(w, r)
		return
	}
	s.mux.ServeHTTP(w, r)
}
