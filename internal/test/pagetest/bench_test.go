package pagetest

import (
	"flag"
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/chromedp/cdproto/cdp"
	"github.com/chromedp/cdproto/heapprofiler"
	"github.com/chromedp/cdproto/page"
	"github.com/chromedp/cdproto/runtime"
	"github.com/chromedp/chromedp"

	"github.com/alphagov/github-actions-runner-orchestration/internal/local"
	"github.com/alphagov/github-actions-runner-orchestration/store"
)

var records = flag.Int("records", 20_000, "how many records there are when the first view is measured")

// drawn notes when the page has drawn the first view, and when the browser has painted it:
// in the second frame after that.
const drawn = `new MutationObserver((_, o) => {
	if (!document.body || !document.body.dataset.shown) return;
	o.disconnect();
	window.drawnAt = performance.now();
	requestAnimationFrame(() => requestAnimationFrame(() => window.firstView = performance.now()));
}).observe(document, {subtree: true, childList: true, attributes: true})`

// TestFirstViewOfManyRecords opens the page over many requests and as many runners, of
// which a hundred live: a view is a few pages of an index, whatever is behind them. It
// prints the times from the address to the first paint and to the first view, and what
// the page holds of memory.
func TestFirstViewOfManyRecords(t *testing.T) {
	const live, loads = 100, 7
	w := newWorld(t)
	w.put(many(*records/2, live)...)
	b := w.browser(1600, 900, "light")
	if _, err := chromedp.Call(b.ctx, page.AddScriptToEvaluateOnNewDocument, page.AddScriptToEvaluateOnNewDocumentParams{Source: drawn}); err != nil {
		t.Fatal(err)
	}
	var paints, views []float64
	for range loads {
		b.do(chromedp.Navigate("about:blank"))
		b.do(chromedp.Navigate(w.url + "/#token=" + w.system.Token.Reveal()))
		b.until("window.firstView")
		paints = append(paints, eval[float64](b, `performance.getEntriesByName("first-contentful-paint")[0].startTime`))
		views = append(views, eval[float64](b, "window.firstView"))
		// A page of the machines and one of the requests in line; the rest follows at once.
		if calls := eval[int](b, `performance.getEntriesByType("resource").filter((e) => e.initiatorType === "fetch" && e.startTime < window.drawnAt).length`); calls != 2 {
			t.Errorf("the first view took %d calls, want 2", calls)
		}
		b.until(fmt.Sprintf(`document.querySelectorAll("tbody tr").length === %d`, live))
	}
	slices.Sort(paints)
	slices.Sort(views)
	if _, err := chromedp.Call(b.ctx, heapprofiler.CollectGarbage, cdp.Empty{}); err != nil {
		t.Fatal(err)
	}
	heap, err := chromedp.Call(b.ctx, runtime.GetHeapUsage, cdp.Empty{})
	if err != nil {
		t.Fatal(err)
	}
	memory := heap.UsedSize / (1 << 20)
	t.Logf("with %d records: first paint after %.0f ms (the fastest of %d %.0f), first view after %.0f ms (the fastest %.0f); the page holds %.1f MB",
		*records, paints[loads/2], loads, paints[0], views[loads/2], views[0], memory)
	if limit := 64.0; memory > limit { // a view has a few hundred rows: ten times as much is a leak
		t.Errorf("the page holds %.1f MB, want at most %.0f", memory, limit)
	}
}

// many returns n requests and their runners, one a second, of which the newest live.
func many(n, live int) (items []store.Item) {
	now := time.Now().UTC()
	repo := store.Repository{ID: "1001", Name: "acme/shop"}
	for n := range n {
		name := id(fmt.Sprint("many", n))
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
	return items
}
