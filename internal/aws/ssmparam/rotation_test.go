package ssmparam_test

import (
	"encoding/json"
	"fmt"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/alphagov/github-actions-runner-orchestration/internal/aws/ssmparam"
	"github.com/alphagov/github-actions-runner-orchestration/internal/keys"
	"github.com/alphagov/github-actions-runner-orchestration/internal/lambda/startup"
	"github.com/alphagov/github-actions-runner-orchestration/store"
)

// rotation is a step: the keys that there are from then on, the current one first,
// as Terraform's key_ids.
type rotation struct {
	after time.Duration // since the step before
	ids   []string
}

// documented are the steps of docs/operate.md.
func documented(t *testing.T) []rotation {
	t.Helper()
	b, err := os.ReadFile("../../../docs/operate.md")
	if err != nil {
		t.Fatal(err)
	}
	_, section, ok := strings.Cut(string(b), "\n### The control plane's keys\n")
	block, _, closed := strings.Cut(section, "\n```\n")
	if !ok || !closed {
		t.Fatal("docs/operate.md has no section about the control plane's keys")
	}
	var out []rotation
	var after time.Duration
	for _, m := range regexp.MustCompile(`# (\d+) (minutes|hours) later|\{key_ids: (\[.*?\])\}`).FindAllStringSubmatch(block, -1) {
		if m[3] == "" {
			if after, err = time.ParseDuration(m[1] + m[2][:1]); err != nil {
				t.Fatal(err)
			}
			continue
		}
		var ids []string
		if err := json.Unmarshal([]byte(m[3]), &ids); err != nil {
			t.Fatal(err)
		}
		out = append(out, rotation{after, ids})
	}
	return out
}

// The functions read the keys again at times of their own: while they do not know
// the same ones, no machine may be launched with a key that the API lacks, nor may
// one lose its key before its longest life is over. The steps of the documents are
// the only ones of these that keep both.
func TestRotationAsDocumentedRefusesNoMachine(t *testing.T) {
	steps := documented(t)
	if len(steps) != 3 || !slices.Equal(steps[0].ids, []string{"k1", "k2"}) || !slices.Equal(steps[2].ids, []string{"k2"}) {
		t.Fatalf("docs/operate.md rotates by %v, want three steps from k1 to k2", steps)
	}
	for _, c := range []struct {
		name  string
		steps []rotation
		want  bool // that no machine is refused
	}{
		{"AsDocumented", steps, true},
		{"CurrentAtOnce", []rotation{{0, []string{"k2", "k1"}}, {25 * time.Hour, []string{"k2"}}}, false},
		{"CurrentAfterFiveMinutes", []rotation{steps[0], {5 * time.Minute, []string{"k2", "k1"}}, steps[2]}, false},
		{"RemovedAfterADay", []rotation{steps[0], steps[1], {24 * time.Hour, []string{"k2"}}}, false},
		{"RemovedAtOnce", []rotation{{0, []string{"k2"}}}, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				if refused := rotate(t, c.steps); (refused == "") != c.want {
					t.Errorf("refused: %q; want that none is: %t", refused, c.want)
				}
			})
		})
	}
}

// process is one of the API or the worker: it reads the keys when it starts, makes
// what it needs of them when its first event comes, and ends after a while.
type process struct {
	begun time.Time
	ring  *startup.Kept[*keys.Ring]
}

const (
	// idle is how long no event comes for: what the process read when it started is
	// then nearly as old as it may be, and is used for five minutes more.
	idle = 290 * time.Second
	life = 20 * time.Minute // long enough that it reads the keys several times
)

// rotate goes through the steps, with processes of the API and of the worker that
// begin at all times, and says what was refused first.
func rotate(t *testing.T, steps []rotation) (refused string) {
	w := newWorld()
	put := func(ids []string) {
		var of []string
		for _, id := range ids {
			of = append(of, fmt.Sprintf("%q: %q", id, key(id[1:])))
		}
		w.ssm.put("/garo/keys", fmt.Sprintf(`{"id": %q, "current": %q, "keys": {%s}}`, key("i"), ids[0], strings.Join(of, ", ")))
	}
	put([]string{"k1"})
	start := func() process {
		p := ssmparam.New(ssmparam.Config{AWS: w.aws(), Prefix: "/garo", Log: w.logger()})
		if _, err := p.Keys(t.Context()); err != nil {
			t.Fatal(err)
		}
		return process{time.Now(), &startup.Kept[*keys.Ring]{Make: p.Keys}}
	}
	apis, workers := make([]process, 24), make([]process, 24)
	for n := range apis {
		time.Sleep(life / 24)
		apis[n], workers[n] = start(), start()
	}
	// rings returns those of the processes that an event can come to, which are made
	// or renewed by that.
	rings := func(all []process) (out []*keys.Ring) {
		for n, p := range all {
			if time.Since(p.begun) >= life {
				all[n] = start()
			} else if time.Since(p.begun) >= idle {
				ring, err := p.ring.Get(t.Context())
				if err != nil {
					t.Fatal(err)
				}
				out = append(out, ring)
			}
		}
		return out
	}
	until := map[string]time.Time{} // how long a machine of each key may live
	began := time.Now()
	walk := func(d time.Duration) {
		begin, end := time.Now(), time.Now().Add(d)
		pause := func() time.Duration { // nothing changes in the hours between two steps
			if time.Since(begin) > time.Hour && time.Until(end) > time.Hour {
				return 5 * time.Minute
			}
			return 10 * time.Second
		}
		for ; time.Now().Before(end) && refused == ""; time.Sleep(pause()) {
			for _, ring := range rings(workers) {
				until[ring.Current()] = time.Now().Add(store.DefaultLimits().HardMax)
			}
			for _, ring := range rings(apis) {
				for kid, end := range until {
					if _, err := ring.Boot(kid, "runner", 0); err != nil && time.Now().Before(end) {
						refused = fmt.Sprintf("a machine of %s, %s after the first step", kid, time.Since(began))
					}
				}
			}
		}
	}
	walk(time.Hour)
	began = time.Now()
	for _, s := range steps {
		walk(s.after)
		put(s.ids)
	}
	walk(time.Hour)
	return refused
}
