package pagetest

import (
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/chromedp/chromedp"
	"github.com/chromedp/chromedp/kb"

	"github.com/alphagov/github-actions-runner-orchestration/internal/local"
	"github.com/alphagov/github-actions-runner-orchestration/internal/test/npmtest"
	"github.com/alphagov/github-actions-runner-orchestration/store"
)

var pictures = flag.String("pictures", "", "write screenshots into this directory")

// views are what the page can show, and words that are there with the history.
var views = []struct {
	name string
	want []string
}{
	{"now", []string{"2\nqueued", "1\nlaunching", "1\nbooting", "1\nonline", "2\nbusy", "1\ndraining", "has waited 10m for acme/shop: quota_reached", "spot t3a.small in subnet-a", "paced", "Cost so far", "$0.00"}},
	{"requests", []string{"no_capacity", "acme/shop", "expired", "ready"}},
	{"request/" + id("ready"), []string{"github octocat", "picked up", "runner online", "actions/runs/7001", "ready"}},
	{"request/" + id("failed"), []string{"no_capacity: No placement had capacity", "InsufficientInstanceCapacity", "not launched"}},
	{"runner/" + id("mdonline"), []string{"online", "Name at GitHub", "booted", "launched for a request"}},
	{"failures", []string{"no_capacity", "Allow more instance types", "expired"}},
	{"capacity", []string{"spot t3a.small in subnet-a"}},
	{"spend", []string{"cost more than $1.53", "acme/shop\tBuild\t2\t2.00\t\t$1.50", "acme/shop\tDeploy\t3\t1.50\t0.50\tmore than $0.0345", "acme/web\tBuild\t1\t0.02\t0.02\tunknown"}},
	{"health", []string{"on in " + local.BuiltIn + "/" + local.Region, "7 % of the hour", "2.330.0 is refused by GitHub in 5d", "\t2.0 s\t1.5 s\t3\t40 of ends, 2 of sweeps", "\t12 in 2h\t5 machines without a record", "e-mails", "1\nfailed", "1\nok", "operator ann", "subnet", "subnet-a: It has no default route.", "Give its route table", "the control plane"}},
	{"find/7001", []string{"What this run names"}},
}

func TestEveryViewShowsTheHistory(t *testing.T) {
	w := newWorld(t)
	w.history()
	b := w.browser(1600, 900, "light")
	b.open("now")
	b.picture("page-light")
	if hash := eval[string](b, "location.hash"); hash != "#now" {
		t.Errorf("the address ends with %s, want #now and no token", hash)
	}
	for _, v := range views {
		b.see(v.name)
		if v.name == "spend" || v.name == "health" {
			b.picture("page-" + v.name)
		}
		text := b.text()
		for _, want := range v.want {
			if !strings.Contains(text, want) {
				t.Errorf("%s does not show %q, but\n%s", v.name, want, text)
			}
		}
	}
	b.see("runner/" + id("mdonline"))
	if href := eval[string](b, `[...document.querySelectorAll("main a")].map((a) => a.href).find((h) => h.includes("console.aws"))`); href != "https://eu-west-2.console.aws.amazon.com/ec2/home?region=eu-west-2#InstanceDetails:instanceId="+instance(2) {
		t.Errorf("the instance links to %s, want its page of EC2's console", href)
	}
	b.see("failures")
	if got, want := eval[string](b, `[...document.querySelectorAll("tbody tr")].map((r) => [...r.cells].slice(0, 3).map((c) => c.innerText).join(" ")).join(", ")`), "no_capacity 1 1, expired 0 1"; got != want {
		t.Errorf("failures by code, day and week = %s, want %s", got, want)
	}
}

// A view fits a phone and a wide screen: nothing is cut, and the page does not scroll
// sideways.
func TestViewsFitPhonesAndWideScreens(t *testing.T) {
	w := newWorld(t)
	w.history()
	for _, width := range []int64{360, 1600} {
		scheme, name := "light", "page-phone"
		if width > 1000 {
			scheme, name = "dark", "page-dark"
		}
		b := w.browser(width, 800, scheme)
		b.open("now")
		b.picture(name)
		for _, v := range views {
			b.see(v.name)
			if wide := eval[int64](b, "document.documentElement.scrollWidth"); wide > width {
				t.Errorf("%s is %d wide in a window of %d", v.name, wide, width)
			}
			if box := eval[[]float64](b, `(() => { const r = document.querySelector("main h1").getBoundingClientRect(); return [r.left, r.right, r.height] })()`); box[0] < 0 || box[1] > float64(width) || box[2] < 10 {
				t.Errorf("the heading of %s is at %v in a window of %d", v.name, box, width)
			}
		}
	}
}

// TestNoBarriers has axe-core look at every view, in light and in dark.
func TestNoBarriers(t *testing.T) {
	w := newWorld(t)
	w.history()
	dir, err := npmtest.Install(t.Context(), "axe", ".")
	if err != nil {
		if os.Getenv("CI") == "true" {
			t.Fatalf("install axe-core: %v", err)
		}
		t.Logf("NOT RUN, for lack of axe-core: %v", err)
		return
	}
	axe, err := os.ReadFile(filepath.Join(dir, "node_modules", "axe-core", "axe.min.js"))
	if err != nil {
		t.Fatal(err)
	}
	for _, scheme := range []string{"light", "dark"} {
		b := w.browser(1600, 900, scheme)
		b.do(chromedp.Navigate(w.url + "/"))
		b.until(`document.getElementById("token")`)
		eval[bool](b, string(axe)+"; true")
		check := func(view string) {
			// The page's policy lets no script in; the debugger's is none of the page.
			found := eval[string](b, `axe.run(document, {runOnly: ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "best-practice"]})
				.then((r) => r.violations.map((v) => v.id + ": " + v.nodes.map((n) => n.html).join(" | ")).join("\n"))`)
			if found != "" {
				t.Errorf("%s in %s has barriers:\n%s", view, scheme, found)
			}
		}
		check("the login")
		b.open("now")
		eval[bool](b, string(axe)+"; true")
		for _, v := range views {
			b.see(v.name)
			check(v.name)
		}
	}
}

// picture writes a screenshot if one is asked for, for people: nothing compares them.
func (t *tab) picture(name string) {
	t.Helper()
	if *pictures == "" {
		return
	}
	image, err := chromedp.Run(t.ctx, chromedp.CaptureScreenshot())
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(*pictures, name+".png"), image, 0o644); err != nil {
		t.Fatal(err)
	}
}

func TestTheKeyboardReachesEverything(t *testing.T) {
	w := newWorld(t)
	w.history()
	b := w.browser(1600, 900, "light")
	b.do(chromedp.Navigate(w.url + "/"))
	b.until(`document.activeElement.id === "token"`)
	b.do(chromedp.KeyEvent(w.system.Token.Reveal()), chromedp.KeyEvent(kb.Enter))
	b.shown("now")
	// From the top: the skip link, six views, the search.
	eval[bool](b, `document.body.setAttribute("tabindex", "-1"); document.body.focus(); true`)
	var seen []string
	for range 9 {
		b.do(chromedp.KeyEvent(kb.Tab))
		seen = append(seen, eval[string](b, `document.activeElement.textContent || document.activeElement.id`))
		if outline := eval[string](b, `getComputedStyle(document.activeElement).outlineStyle`); outline == "none" {
			t.Errorf("%s has the focus, and nothing shows it", seen[len(seen)-1])
		}
	}
	if got, want := strings.Join(seen, ", "), "Skip to what is shown, Now, Requests, Failures, Capacity, Spend, Health, q, Find"; got != want {
		t.Errorf("Tab goes to %s, want %s", got, want)
	}
	eval[bool](b, `document.getElementById("q").focus(); true`)
	b.do(chromedp.KeyEvent(instance(2)), chromedp.KeyEvent(kb.Enter))
	b.shown("runner")
	if text := b.text(); !strings.Contains(text, "Runner "+id("mdonline")) {
		t.Errorf("the search for an instance shows\n%s\nwant its runner", text)
	}
	if focus := eval[string](b, `document.activeElement.id`); focus != "main" {
		t.Errorf("after a search the focus is on %q, want on what is shown", focus)
	}
}

// Nothing that a record holds is read as HTML, or runs.
func TestHostileRecordsAreText(t *testing.T) {
	w := newWorld(t)
	const evil = `"><img src=x onerror="window.hacked=1"><script>window.hacked=1</script><svg onload="window.hacked=1">'--` + "\u202e"
	now := time.Now().UTC()
	repo := store.Repository{ID: "1001", Name: evil, Server: evil}
	place := store.Placement{Market: evil, InstanceType: evil, Subnet: evil}
	story := store.History{{At: now, State: evil, Reason: evil}}
	fail := &store.Failure{Code: evil, Text: evil}
	run := &store.Runner{
		ID: id("evilm"), State: store.RunnerOnline, CreatedAt: now, Request: evil, Repository: repo, RunID: evil, Account: evil, Region: evil, Mode: evil, Labels: []string{evil},
		Plan: []store.Placement{place}, InstanceID: "i-" + evil, Lock: evil, Wait: evil, Hard: now.Add(time.Hour), End: fail, Stolen: evil, Job: store.Job{RunID: evil, StartedAt: now}, History: story,
		Attempts: []store.Attempt{{Placement: place, Runner: evil, At: now, Code: evil}}, Names: []store.GitHubName{{N: 1, Name: evil}}, Config: store.Config{N: 1},
	}
	request := func(name string, state store.RequestState) *store.Request {
		return &store.Request{
			ID: id(name), State: state, CreatedAt: now, Caller: evil, Repository: repo, Origin: store.Origin{RunID: "7001"}, Trace: evil, Account: evil, Region: evil, Type: evil, Labels: []string{evil}, Mode: evil,
			OwnLabel: evil, GiveUpAt: now, EndedAt: now, Wait: evil, Runner: run.ID, Attempts: run.Attempts, Error: fail, History: story,
		}
	}
	usage := &store.Usage{ID: store.UsageRef(now, repo).ID, Repository: repo, Rows: []store.UsageRow{{Account: evil, Workflow: evil, InstanceType: evil, Market: evil, Runners: 1, Seconds: 60}}}
	found := &store.Checkup{ID: store.LastCheck, Caller: evil, CreatedAt: now, EndedAt: now, Findings: []store.Finding{{Check: evil, Account: evil, Region: evil, About: evil, Result: store.Result(evil), Evidence: evil, Remedy: evil}}}
	reaped := &store.ReaperRun{ID: "0", StartedAt: now, EndedAt: now, Left: map[string]int{evil: 1}, LookedAt: now, Braked: []string{evil}, Program: evil, ProgramEndsAt: now, Alarms: []store.Raised{{Code: store.Alarm(evil), Count: 1, Since: now, At: now, Text: evil}}}
	w.put(run, usage, request("evila", store.Accepted), request("evilb", store.Failed), found, reaped)
	b := w.browser(1600, 900, "light")
	b.open("now")
	for _, view := range []string{"now", "requests", "request/" + id("evila"), "request/" + id("evilb"), "runner/" + run.ID, "failures", "capacity", "spend", "health", "find/7001"} {
		b.see(view)
		if n := eval[int](b, `document.querySelectorAll("main img, main script, main [onload], main [onerror], main a[href^=javascript]").length`); n != 0 {
			t.Errorf("%s has %d elements out of a record", view, n)
		}
		if eval[bool](b, `"hacked" in window`) {
			t.Fatalf("%s ran what a record holds", view)
		}
		if text := b.text(); !strings.Contains(text, "<script>window.hacked=1</script>") {
			t.Errorf("%s shows\n%s\nwant the record's text as it is", view, text)
		}
	}
	for _, words := range []string{`find/%3Cimg%20src=x%20onerror=window.hacked=1%3E`, `request/..%2F..%2Fhealthz`} {
		b.to(words)
		b.shown("refused")
		if eval[bool](b, `"hacked" in window`) {
			t.Fatalf("the address #%s ran", words)
		}
	}
}

func TestThePageTeachesWhereThereIsNothing(t *testing.T) {
	w := newWorld(t)
	b := w.browser(800, 600, "dark")
	b.open("now")
	for view, want := range map[string]string{
		"now": "garo start --repo OWNER/NAME --wait", "requests": "No request yet", "failures": "Nothing failed in seven days", "capacity": "Nothing was launched in 24 hours", "spend": "No machine has ended in seven days",
		"health": "No run of the reaper is recorded yet",
	} {
		b.see(view)
		if text := b.text(); !strings.Contains(text, want) {
			t.Errorf("%s shows\n%s\nwant %q", view, text, want)
		}
	}
}

// A reaper that runs no more, or of which a shard never ran, is said in red.
func TestTheHealthViewTellsOfARunThatIsMissing(t *testing.T) {
	w := newWorld(t)
	b := w.browser(800, 600, "light")
	b.open("now")
	b.see("health")
	if text := b.text(); !strings.Contains(text, "Nothing was checked yet: garo doctor") {
		t.Errorf("health shows\n%s\nwant how to check", text)
	}
	now := time.Now().UTC()
	run := func(shard string, ago time.Duration) *store.ReaperRun {
		return &store.ReaperRun{ID: shard, Of: 3, StartedAt: now.Add(-ago), EndedAt: now.Add(-ago)}
	}
	w.put(run("0", 100*time.Hour), run("2", 0))
	b.until(`document.querySelectorAll("main p.bad").length === 2`)
	const red = `[...document.querySelectorAll("main .bad")].map((e) => e.innerText).join("|")`
	if got, want := eval[string](b, red), "The last run of the reaper, shard 0, began 4d ago, and there is one every minute: look at its schedule, its function and its log.|No run is recorded yet of the reaper's shards: 1.|4d ago"; got != want {
		t.Errorf("in red is %q, want %q", got, want)
	}
	for _, want := range []string{"not known", "not looked at yet", "The reaper raised no alarm within a day"} {
		if text := b.text(); !strings.Contains(text, want) {
			t.Errorf("health shows\n%s\nwant %q", text, want)
		}
	}
}

func TestATokenThatDoesNotServeIsAskedForAgain(t *testing.T) {
	w := newWorld(t)
	b := w.browser(800, 600, "dark")
	b.do(chromedp.Navigate(w.url + "/#token=garo_op_wrong"))
	b.until(`document.getElementById("token")`)
	if text := b.text(); !strings.Contains(text, "Send a valid token") {
		t.Errorf("the page shows\n%s\nwant the API's words", text)
	}
	if kept := eval[string](b, `JSON.stringify(sessionStorage) + document.cookie + JSON.stringify(localStorage)`); strings.Contains(kept, "garo_op_") {
		t.Errorf("the page keeps %s, want no token that does not serve", kept)
	}
}

// Polls of an unchanged list are answered with 304, and a change is shown without a touch.
func TestThePageFollowsWhatHappens(t *testing.T) {
	w := newWorld(t)
	w.history()
	b := w.browser(1600, 900, "light")
	b.open("now")
	run := &store.Runner{ID: id("later"), State: store.RunnerNew, CreatedAt: time.Now().UTC(), Request: id("ready"), Account: local.BuiltIn, Region: local.Region, Hard: time.Now().Add(time.Hour).UTC()}
	w.put(run)
	b.until(fmt.Sprintf(`document.querySelector('main a[href="#runner/%s"]')`, run.ID))
	b.until(`performance.getEntriesByType("resource").some((e) => e.responseStatus === 304)`)
	if said := eval[string](b, `document.getElementById("news").textContent`); said != "" {
		t.Errorf("the page says %q, want nothing", said)
	}
}
