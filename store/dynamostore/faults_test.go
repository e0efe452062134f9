package dynamostore_test

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"regexp"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"

	"github.com/alphagov/github-actions-runner-orchestration/internal/test/awstest"
	"github.com/alphagov/github-actions-runner-orchestration/store"
	"github.com/alphagov/github-actions-runner-orchestration/store/dynamostore"
)

// tap is a transport that counts calls and answers, and lets a test do harm.
type tap struct {
	base http.RoundTripper
	harm harming

	mu    sync.Mutex
	open  map[string]int // calls on their way, by operation
	calls map[string]int // by operation
	codes map[string]int // error codes, and the reasons of cancelled transactions
}

// harming says what becomes of a call. n counts the calls of that operation from 1,
// and open those that are on their way already.
type harming func(op string, n, open int) harm

type harm int

const (
	fine   harm = iota
	before      // the request never arrives
	after       // it takes effect, and its answer is lost
	half        // it takes effect, and its answer breaks off
	// met has the transaction meet another one: it has no effect.
	met
	// newToken lets the request arrive as another transaction, as if DynamoDB had
	// forgotten the first one, which it does after ten minutes.
	newToken
)

var (
	errCode   = regexp.MustCompile(`"__type":"[^"]*#([A-Za-z]+)"`)
	reasonFor = regexp.MustCompile(`"Code":"([A-Za-z]+)"`)
	anyToken  = regexp.MustCompile(`"ClientRequestToken":"[^"]*"`)
	tokens    atomic.Int64
)

func (p *tap) RoundTrip(r *http.Request) (*http.Response, error) {
	op := operation(r)
	p.mu.Lock()
	p.calls[op]++
	h := fine
	if p.harm != nil {
		h = p.harm(op, p.calls[op], p.open[op])
	}
	p.open[op]++
	p.mu.Unlock()
	defer func() {
		p.mu.Lock()
		p.open[op]--
		p.mu.Unlock()
	}()
	switch h {
	case before:
		return nil, errors.New("dial tcp: connection refused")
	case met:
		p.mu.Lock()
		p.codes["TransactionConflict"]++
		p.mu.Unlock()
		a := cancelled(none, conflict)
		return &http.Response{StatusCode: a.status, Header: http.Header{}, Body: io.NopCloser(strings.NewReader(a.body)), Request: r}, nil
	case newToken:
		body, err := io.ReadAll(r.Body)
		if err != nil {
			return nil, err
		}
		body = anyToken.ReplaceAll(body, fmt.Appendf(nil, `"ClientRequestToken":"other-%d"`, tokens.Add(1)))
		r = r.Clone(r.Context())
		r.Body, r.ContentLength, r.GetBody = io.NopCloser(bytes.NewReader(body)), int64(len(body)), nil
	}
	answer, err := p.base.RoundTrip(r)
	if err != nil {
		return nil, err
	}
	body, err := io.ReadAll(answer.Body)
	if err != nil {
		return nil, err
	}
	_ = answer.Body.Close()
	if answer.StatusCode != http.StatusOK {
		p.mu.Lock()
		for _, m := range append(errCode.FindAllSubmatch(body, -1), reasonFor.FindAllSubmatch(body, -1)...) {
			p.codes[string(m[1])]++
		}
		p.mu.Unlock()
	}
	switch h {
	case after:
		return nil, errors.New("read tcp: connection reset by peer")
	case half:
		body = body[:len(body)/2]
		answer.Body = io.NopCloser(io.MultiReader(bytes.NewReader(body), broken{}))
		return answer, nil
	}
	answer.Body = io.NopCloser(bytes.NewReader(body))
	return answer, nil
}

// broken is where a connection breaks.
type broken struct{}

func (broken) Read([]byte) (int, error) { return 0, io.ErrUnexpectedEOF }

// forget makes p count again.
func (p *tap) forget() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.calls, p.codes = map[string]int{}, map[string]int{}
}

// tapped returns a store on a new table of s, whose calls go through the tap.
func tapped(t testing.TB, s *awstest.Server, h harming) (*dynamostore.Store, *tap) {
	t.Helper()
	cfg := config(t, s)
	table := newTable(t, cfg)
	client := *cfg.HTTPClient.(*http.Client)
	p := &tap{base: client.Transport, harm: h, open: map[string]int{}, calls: map[string]int{}, codes: map[string]int{}}
	client.Transport = p
	cfg.HTTPClient = aws.HTTPClient(&client)
	return dynamostore.New(cfg, table, nil), p
}

func TestLostAnswersAreRecognised(t *testing.T) {
	// Each commits twice, so that a put that creates and one that changes are harmed.
	one := func(now int64) []store.Change {
		return []store.Change{store.Put(&store.Quota{Meta: store.Meta{Version: now}, Account: "1", Live: int(now) + 1})}
	}
	many := func(now int64) []store.Change {
		return append(one(now), store.Put(&store.Lock{Meta: store.Meta{Version: now}, Key: "k"}), store.Check(&store.Lock{Key: "absent"}))
	}
	for _, s := range standins {
		for _, c := range []struct {
			name    string
			changes func(now int64) []store.Change
			op      string
			harms   []harm
		}{
			{"AnswerOfAPut", one, "PutItem", []harm{after}},
			{"HalfTheAnswerOfAPut", one, "PutItem", []harm{half}},
			{"AnswerOfAPutTwice", one, "PutItem", []harm{after, after}},
			{"RequestAndAnswerOfAPut", one, "PutItem", []harm{before, after}},
			{"AnswerOfATransaction", many, "TransactWriteItems", []harm{after}},
			{"HalfTheAnswerOfATransaction", many, "TransactWriteItems", []harm{half}},
			{"RequestOfATransaction", many, "TransactWriteItems", []harm{before}},
			{"AnswerOfATransactionThatIsForgotten", many, "TransactWriteItems", []harm{after, newToken}},
		} {
			t.Run(s.name+"/"+c.name, func(t *testing.T) {
				st, p := tapped(t, s.start(t), func(op string, n, _ int) harm {
					if n--; op == c.op && n%(len(c.harms)+1) < len(c.harms) {
						return c.harms[n%(len(c.harms)+1)]
					}
					return fine
				})
				calls := len(c.harms) + 1
				if c.harms[len(c.harms)-1] == newToken {
					calls = len(c.harms) // which answers
					p.harm = func(_ string, n, _ int) harm { return c.harms[(n-1)%calls] }
				}
				session := store.NewWriter(st, "worker-1", time.Now)
				for now := range int64(2) {
					p.forget()
					changes := c.changes(now)
					if err := session.Commit(t.Context(), changes...); err != nil {
						t.Fatalf("Commit of version %d = %v, want nil: it was written", now+1, err)
					}
					if got := p.calls[c.op]; got != calls {
						t.Errorf("%d calls, want %d", got, calls)
					}
					got, err := store.Read[store.Quota](t.Context(), st, "1")
					if err != nil || got.Version != now+1 || got.Live != int(now)+1 || changes[0].Item.Base().Version != now+1 {
						t.Errorf("stored is version %d with %d live, %v; the caller's version %d; want version %d, once", got.Version, got.Live, err, changes[0].Item.Base().Version, now+1)
					}
				}
			})
		}
	}
}

func TestEachCallIsOneRoundTrip(t *testing.T) {
	for _, s := range standins {
		t.Run(s.name, func(t *testing.T) {
			st, p := tapped(t, s.start(t), nil)
			world := online(t, "abcdefghijklmnopqrstuvwxya", noon)
			var puts []store.Change
			var refs []store.Ref
			for _, i := range world.items() {
				puts, refs = append(puts, store.Put(i)), append(refs, i.Ref())
			}
			get := func(refs ...store.Ref) func() error {
				return func() error {
					_, err := st.Get(t.Context(), refs...)
					return err
				}
			}
			commit := func(changes ...store.Change) func() error {
				return func() error { return st.Commit(t.Context(), changes...) }
			}
			hundred := make([]store.Ref, 100)
			for n := range hundred {
				hundred[n] = store.Ref{Kind: store.KindRequest, ID: fmt.Sprint(n)}
			}
			for _, c := range []struct {
				name string
				call func() error
				want map[string]int
			}{
				{"Commit of six", commit(puts...), map[string]int{"TransactWriteItems": 1}},
				{"Commit of one", commit(puts[0]), map[string]int{"PutItem": 1}},
				{"Check of one", commit(store.Check(&world.lock)), map[string]int{"GetItem": 1}},
				{"Commit of one with a check", commit(puts[0], store.Check(&world.lock)), map[string]int{"TransactWriteItems": 1}},
				{"Get of one", get(refs[0]), map[string]int{"GetItem": 1}},
				{"Get of one twice", get(refs[0], refs[0]), map[string]int{"GetItem": 1}},
				{"Get of all", get(refs...), map[string]int{"BatchGetItem": 1}},
				{"Get of a hundred", get(hundred...), map[string]int{"BatchGetItem": 1}},
				{"Get of 101", get(append(refs[:1:1], hundred...)...), map[string]int{"BatchGetItem": 1, "GetItem": 1}},
				{"Get of none", get(), map[string]int{}},
				{"Due", func() error {
					for _, err := range st.Due(t.Context(), noon.Add(time.Hour)) {
						if err != nil {
							return err
						}
					}
					return nil
				}, map[string]int{"Query": 1}},
				{"List", func() error {
					for _, err := range st.List(t.Context(), store.Filter{Repository: "123456789", Limit: 50}) {
						if err != nil {
							return err
						}
					}
					return nil
				}, map[string]int{"Query": 1, "GetItem": 1}},
			} {
				p.forget()
				if err := c.call(); err != nil {
					t.Errorf("%s: %v", c.name, err)
				}
				if !maps.Equal(p.calls, c.want) {
					t.Errorf("%s makes the calls %v, want %v", c.name, p.calls, c.want)
				}
			}
		})
	}
}

func TestMisuseMakesNoCall(t *testing.T) {
	d := &dynamo{script: []answer{done}}
	st := over(d)
	for what, err := range map[string]error{
		"no change":         st.Commit(t.Context()),
		"an item too large": st.Commit(t.Context(), store.Put(&store.Lock{Key: "k", Runner: strings.Repeat("x", 500<<10)})),
	} {
		if err == nil || errors.Is(err, store.ErrConflict) {
			t.Errorf("Commit of %s = %v, want an error that is no conflict", what, err)
		}
	}
	if len(d.calls) != 0 {
		t.Errorf("calls = %v, want none", d.calls)
	}
}
