package oidc_test

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/alphagov/github-actions-runner-orchestration/internal/local/memhttp"
	"github.com/alphagov/github-actions-runner-orchestration/internal/oidc"
)

// slow answers after a while, as the issuer would.
func (w *world) slow(d time.Duration) http.Handler {
	return http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		select {
		case <-time.After(d):
			w.AnswerKeys(nil)
			w.ServeHTTP(rw, r)
		case <-r.Context().Done():
		}
	})
}

func TestColdStartFetchesOnce(t *testing.T) {
	inWorld(t, func(w *world) {
		w.AnswerKeys(w.slow(time.Second))
		token := w.token()
		var wg sync.WaitGroup
		for range 100 {
			wg.Go(func() {
				if _, err := w.verifier.Verify(w.Context(), token); err != nil {
					w.Errorf("Verify = %v, want it to wait for the keys", err)
				}
			})
		}
		wg.Wait()
		w.fetched(1)
	})
}

func TestWarmVerificationAsksNobody(t *testing.T) {
	inWorld(t, func(w *world) {
		w.prefetch()
		for range 50 {
			w.verify(w.token())
			time.Sleep(time.Minute)
		}
		w.fetched(1)
	})
}

func TestFloodOfUnknownKeysFetchesOnce(t *testing.T) {
	unknown := func(w *world, payload string, i int) {
		w.refused(sign(theirs, head(map[string]any{"kid": fmt.Sprintf("random-%d", i)}), payload), "issuer has no key of that id")
	}
	t.Run("Cold", func(t *testing.T) {
		inWorld(t, func(w *world) {
			w.AnswerKeys(w.slow(time.Second))
			payload := w.payload(nil)
			signed := sign(theirs, goodHeader, payload) // once: no signature is looked at
			rest := signed[strings.Index(signed, "."):]
			var wg sync.WaitGroup
			for i := range 10_000 {
				wg.Go(func() {
					token := b64(head(map[string]any{"kid": fmt.Sprintf("random-%d", i)})) + rest
					if _, err := w.verifier.Verify(w.Context(), token); !errors.Is(err, oidc.ErrToken) {
						w.Errorf("Verify = %v, want ErrToken", err)
					}
				})
			}
			wg.Wait()
			w.fetched(1)
			w.verify(w.token())
		})
	})
	t.Run("Warm", func(t *testing.T) {
		inWorld(t, func(w *world) {
			w.prefetch()
			time.Sleep(10 * time.Minute)
			payload := w.payload(nil)
			for i := range 290 { // almost five minutes
				unknown(w, payload, i)
				time.Sleep(time.Second)
			}
			w.fetched(2)
			w.verify(w.token())
		})
	})
	t.Run("ForAnHour", func(t *testing.T) {
		inWorld(t, func(w *world) {
			w.prefetch()
			for i := range 360 {
				unknown(w, w.payload(nil), i)
				time.Sleep(10 * time.Second)
			}
			w.fetched(12) // and none more than every five minutes
		})
	})
	t.Run("WhileTheIssuerIsAway", func(t *testing.T) {
		inWorld(t, func(w *world) {
			w.prefetch()
			w.AnswerKeys(status(503))
			time.Sleep(5 * time.Minute)
			for range 360 {
				// It may be a new key: there is no telling.
				w.away(sign(theirs, head(map[string]any{"kid": "random"}), w.payload(nil)))
				w.verify(w.token())
				time.Sleep(10 * time.Second)
			}
			w.fetched(13)
		})
	})
}

func TestNewKeyIsFetchedWhenItIsUsed(t *testing.T) {
	inWorld(t, func(w *world) {
		w.prefetch()
		time.Sleep(10 * time.Minute)
		old := w.token()
		if err := w.Rotate(successor); err != nil {
			w.Fatal(err)
		}
		w.verify(w.token())
		w.verify(old)
		w.fetched(2)
		if err := w.Rotate(theirs); err != nil {
			w.Fatal(err)
		}
		w.refused(w.token(), "issuer has no key of that id")
		time.Sleep(5 * time.Minute)
		w.verify(w.token())
		w.fetched(3)
	})
}

// A new key that comes up during a fetch waits for it.
func TestUnknownKeyWaitsForTheFetchUnderWay(t *testing.T) {
	inWorld(t, func(w *world) {
		w.prefetch()
		time.Sleep(10 * time.Minute)
		if err := w.Rotate(successor); err != nil {
			w.Fatal(err)
		}
		w.AnswerKeys(w.slow(2 * time.Second))
		token := w.token()
		var wg sync.WaitGroup
		for range 10 {
			wg.Go(func() {
				if _, err := w.verifier.Verify(w.Context(), token); err != nil {
					w.Errorf("Verify = %v, want it taken", err)
				}
			})
			time.Sleep(100 * time.Millisecond)
		}
		wg.Wait()
		w.fetched(2)
	})
}

func TestWithdrawnKeyIsBelievedForAnHourAtMost(t *testing.T) {
	inWorld(t, func(w *world) {
		w.prefetch()
		stolen := func() string { return w.with(nil) } // by ours, no matter who signs now
		if err := w.Rotate(successor); err != nil {
			w.Fatal(err)
		}
		w.Withdraw()
		time.Sleep(time.Hour - time.Second)
		w.verify(stolen())
		time.Sleep(time.Second)
		w.refused(stolen(), "issuer has no key of that id")
		w.verify(w.token())
		w.fetched(2)
	})
}

func TestIssuerMayBeAwayForADay(t *testing.T) {
	inWorld(t, func(w *world) {
		w.prefetch()
		start := time.Now()
		w.AnswerKeys(status(500))
		for time.Since(start) < 24*time.Hour {
			w.verify(w.token())
			time.Sleep(150 * time.Second)
		}
		// 23 hours in which a newer set was tried for every five minutes, and the first one.
		w.fetched(1 + 23*12)
		w.asked.Store(0)
		for range 10 {
			err := w.away(w.token())
			if err != nil && strings.Contains(err.Error(), "canary") || strings.Contains(w.log.String(), "canary") {
				w.Errorf("the answer's body is in %v or in the log", err)
			}
			time.Sleep(time.Second)
		}
		w.fetched(2) // one every five seconds
		w.AnswerKeys(nil)
		time.Sleep(5 * time.Second)
		w.verify(w.token())
	})
}

func TestRenewalHoldsUpOneCallAlone(t *testing.T) {
	inWorld(t, func(w *world) {
		w.prefetch()
		time.Sleep(2 * time.Hour)
		w.AnswerKeys(w.slow(time.Hour)) // it does not answer at all
		token := w.token()
		start := time.Now()
		var slow sync.WaitGroup
		slow.Go(func() {
			if _, err := w.verifier.Verify(w.Context(), token); err != nil || time.Since(start) != 5*time.Second {
				w.Errorf("Verify = %v after %v, want it taken after the fetch's five seconds", err, time.Since(start))
			}
		})
		synctest.Wait()
		for range 20 {
			w.verify(token)
		}
		if d := time.Since(start); d != 0 {
			w.Errorf("the others waited %v, want none", d)
		}
		slow.Wait()
		w.fetched(2)
	})
}

func TestFailedFetchIsNotRepeatedAtOnce(t *testing.T) {
	inWorld(t, func(w *world) {
		w.AnswerKeys(status(502))
		if err := w.verifier.Prefetch(w.Context()); err == nil || errors.Is(err, oidc.ErrToken) {
			w.Errorf("Prefetch = %v, want an outage", err)
		}
		var wg sync.WaitGroup
		for range 100 {
			wg.Go(func() { w.away(w.token()) })
		}
		wg.Wait()
		w.fetched(1)
		time.Sleep(4999 * time.Millisecond)
		w.away(w.token())
		w.fetched(1)
		w.AnswerKeys(nil)
		time.Sleep(time.Millisecond)
		w.verify(w.token())
		w.fetched(2)
	})
}

func TestIssuerThatHangsIsAnOutage(t *testing.T) {
	inWorld(t, func(w *world) {
		w.AnswerKeys(w.slow(time.Hour))
		start := time.Now()
		token := w.token()
		var wg sync.WaitGroup
		for range 10 {
			wg.Go(func() { w.away(token) })
		}
		wg.Wait()
		if d := time.Since(start); d != 5*time.Second {
			w.Errorf("ten calls took %v, want 5s for all of them", d)
		}
		w.fetched(1)
	})
}

func TestWaiterStopsWhenItsTimeIsOver(t *testing.T) {
	inWorld(t, func(w *world) {
		w.AnswerKeys(w.slow(4 * time.Second))
		token := w.token()
		var wg sync.WaitGroup
		wg.Go(func() {
			if _, err := w.verifier.Verify(w.Context(), token); err != nil {
				w.Errorf("Verify of who fetches = %v", err)
			}
		})
		synctest.Wait()
		ctx, cancel := context.WithTimeout(w.Context(), time.Second)
		defer cancel()
		start := time.Now()
		_, err := w.verifier.Verify(ctx, token)
		if !errors.Is(err, context.DeadlineExceeded) || errors.Is(err, oidc.ErrToken) || time.Since(start) != time.Second {
			w.Errorf("Verify = %v after %v, want the deadline after 1s", err, time.Since(start))
		}
		wg.Wait()
		w.fetched(1)
	})
}

// A caller that hangs up in the middle costs the others nothing.
func TestFetchGoesOnForTheOthers(t *testing.T) {
	inWorld(t, func(w *world) {
		w.AnswerKeys(w.slow(2 * time.Second))
		token := w.token()
		ctx, hangUp := context.WithCancel(w.Context())
		var wg sync.WaitGroup
		wg.Go(func() {
			if _, err := w.verifier.Verify(ctx, token); err != nil {
				w.Errorf("Verify of who fetches = %v", err)
			}
		})
		synctest.Wait()
		wg.Go(func() {
			if _, err := w.verifier.Verify(w.Context(), token); err != nil {
				w.Errorf("Verify of who waits = %v", err)
			}
		})
		hangUp()
		wg.Wait()
		w.fetched(1)
		w.verifier = w.trust(oidc.Issuer{URL: github})
		if _, err := w.verifier.Verify(ctx, token); !errors.Is(err, context.Canceled) {
			w.Errorf("Verify of who hung up before = %v, want context.Canceled", err)
		}
		w.fetched(1)
	})
}

func TestDeadlineEndsTheFetchToo(t *testing.T) {
	inWorld(t, func(w *world) {
		w.AnswerKeys(w.slow(time.Hour))
		ctx, cancel := context.WithTimeout(w.Context(), time.Second)
		defer cancel()
		start := time.Now()
		_, err := w.verifier.Verify(ctx, w.token())
		if err == nil || errors.Is(err, oidc.ErrToken) || time.Since(start) != time.Second {
			w.Errorf("Verify = %v after %v, want an outage after 1s", err, time.Since(start))
		}
	})
}

// A panic while fetching must not keep the turn for ever.
func TestFetchThatPanicsCanBeRepeated(t *testing.T) {
	inWorld(t, func(w *world) {
		broken := true
		v, err := oidc.New(oidc.Config{Issuers: []oidc.Issuer{{URL: github}}, Audience: audience, HTTP: &http.Client{Transport: roundTripper(func(r *http.Request) (*http.Response, error) {
			if broken {
				panic("broken transport")
			}
			return memhttp.Transport{Handler: w.Issuer}.RoundTrip(r)
		})}})
		if err != nil {
			w.Fatal(err)
		}
		func() {
			defer func() {
				if recover() == nil {
					w.Error("Verify did not panic, which this test is about")
				}
			}()
			_, _ = v.Verify(w.Context(), w.token())
		}()
		broken = false
		if _, err := v.Verify(w.Context(), w.token()); err != nil {
			w.Errorf("Verify after the panic = %v", err)
		}
	})
}

type roundTripper func(*http.Request) (*http.Response, error)

func (f roundTripper) RoundTrip(r *http.Request) (*http.Response, error) { return f(r) }

func TestClockThatIsSetBackDoesNotStopFetching(t *testing.T) {
	for _, ahead := range []time.Duration{10 * time.Minute, 2 * time.Hour, 30 * 24 * time.Hour} {
		inWorld(t, func(w *world) {
			v, err := oidc.New(oidc.Config{
				Issuers: []oidc.Issuer{{URL: github}}, Audience: audience, HTTP: memhttp.Client(w.Issuer),
				Now: func() time.Time { return time.Now().Add(ahead) },
			})
			if err != nil {
				w.Fatal(err)
			}
			if err := v.Prefetch(w.Context()); err != nil {
				w.Fatal(err)
			}
			ahead = 0
			if err := w.Rotate(successor); err != nil {
				w.Fatal(err)
			}
			if _, err := v.Verify(w.Context(), w.token()); err != nil {
				w.Errorf("Verify by a new key after the clock was set right = %v", err)
			}
		})
	}
}

func TestPrefetchFetchesWhatIsMissing(t *testing.T) {
	inWorld(t, func(w *world) {
		w.hosts["one.example.org"], w.hosts["two.example.org"] = text("no keys"), w.Issuer
		w.verifier = w.trust(oidc.Issuer{URL: github}, oidc.Issuer{URL: "https://one.example.org"}, oidc.Issuer{URL: "https://two.example.org"})
		err := w.verifier.Prefetch(w.Context())
		if err == nil || !strings.Contains(err.Error(), "https://one.example.org") || strings.Contains(err.Error(), "https://two.example.org") {
			w.Errorf("Prefetch = %v, want it to name the issuer that failed, and no other", err)
		}
		w.fetched(3)
		w.verify(w.token())
		time.Sleep(30 * time.Minute)
		w.hosts["one.example.org"] = w.Issuer
		w.prefetch()
		w.fetched(4)
	})
}
