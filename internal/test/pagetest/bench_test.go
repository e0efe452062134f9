package pagetest

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/chromedp/chromedp"

	"github.com/alphagov/github-actions-runner-orchestration/internal/local"
	"github.com/alphagov/github-actions-runner-orchestration/store"
)

// TestFirstViewOfManyRecords opens the page over 20,000 requests and as many runners, of
// which a hundred live: a view is a few pages of an index, whatever is behind them. It
// prints the time to the first view and what the page holds of memory.
func TestFirstViewOfManyRecords(t *testing.T) {
	const records, live = 20_000, 100
	w := newWorld(t)
	now := time.Now().UTC()
	repo := store.Repository{ID: "1001", Name: "acme/shop"}
	number := strings.NewReplacer("0", "a", "1", "b", "2", "c", "3", "d", "4", "e", "5", "f", "6", "g", "7", "h", "8", "i", "9", "j")
	var items []store.Item
	for n := range records {
		name := id(number.Replace(fmt.Sprintf("x%d", 1_000_000+n)))
		at := now.Add(-time.Duration(n) * time.Second)
		run := &store.Runner{
			ID: name, State: store.RunnerEnded, CreatedAt: at, EndedAt: at.Add(time.Hour), Request: name, Repository: repo, Account: local.BuiltIn, Region: local.Region, Hard: at.Add(6 * time.Hour),
			Plan: []store.Placement{{Market: store.Spot, InstanceType: "t3a.small", Subnet: "subnet-a"}}, History: store.History{{At: at, State: "new"}},
		}
		if n < live {
			run.State, run.EndedAt = store.RunnerBusy, time.Time{}
		}
		items = append(items, run, &store.Request{ID: name, State: store.Ready, CreatedAt: at, Runner: name, Repository: repo, Account: local.BuiltIn, Region: local.Region, Type: store.Spot, Mode: store.Shared, GiveUpAt: at})
	}
	w.put(items...)
	b := w.browser(1600, 900, "light")
	b.do(chromedp.Navigate(w.url + "/")) // the browser is warm, and no view was shown
	b.until(`document.getElementById("token")`)
	b.open("now")
	if got := eval[int](b, `document.querySelectorAll("tbody tr").length`); got != live {
		t.Errorf("the first view has %d machines, want all %d", got, live)
	}
	took := eval[float64](b, `Math.max(...performance.getEntriesByType("resource").map((e) => e.responseEnd)) - Math.min(...performance.getEntriesByType("resource").filter((e) => e.initiatorType === "fetch").map((e) => e.startTime))`)
	memory := eval[float64](b, `performance.memory.usedJSHeapSize / 1048576`)
	t.Logf("with %d records, the calls of the first view took %.0f ms, and the page holds %.1f MB", 2*records, took, memory)
	if limit := 64.0; memory > limit { // a view has a few hundred rows: ten times as much is a leak
		t.Errorf("the page holds %.1f MB, want at most %.0f", memory, limit)
	}
}
