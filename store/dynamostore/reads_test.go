package dynamostore_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/alphagov/github-actions-runner-orchestration/store"
)

func TestUnprocessedKeysAreReadAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		lock := func(key string) string { return wire(t, &store.Lock{Key: key}, 1, "a/1") }
		left := func(keys ...string) string {
			return `"UnprocessedKeys":{"garo":{"ConsistentRead":true,"Keys":[{"item":{"S":"lock#` + strings.Join(keys, `"}},{"item":{"S":"lock#`) + `"}}]}}`
		}
		d := &dynamo{script: []answer{
			{status: 200, body: `{"Responses":{"garo":[` + lock("b") + `]},` + left("a", "c") + `}`},
			failed(400, "ProvisionedThroughputExceededException", "exceeded"),
			{status: 200, body: `{"Responses":{},` + left("a", "c") + `}`},
			{status: 200, body: `{"Responses":{"garo":[` + lock("a") + `]},"UnprocessedKeys":{}}`},
		}}
		got, err := over(d).Get(t.Context(), store.Ref{Kind: store.KindLock, ID: "a"}, store.Ref{Kind: store.KindLock, ID: "b"}, store.Ref{Kind: store.KindLock, ID: "c"})
		if err != nil || len(d.calls) != 4 {
			t.Fatalf("Get = %v after %d calls, want all after 4", err, len(d.calls))
		}
		for n, want := range []int64{1, 1, 0} {
			if v := got[n].Base().Version; v != want {
				t.Errorf("item %s has version %d, want %d", got[n].Ref(), v, want)
			}
		}
		for n, want := range []int{3, 2, 2, 2} { // how many keys were asked for
			if got := strings.Count(d.bodies[n], `"lock#`); got != want {
				t.Errorf("call %d asks for %d items, want %d: %s", n+1, got, want, d.bodies[n])
			}
		}
	})
}

func TestStrangeAnswersToAReadAreErrors(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a, b := store.Ref{Kind: store.KindLock, ID: "a"}, store.Ref{Kind: store.KindLock, ID: "b"}
		for _, c := range []struct{ name, body, says string }{
			{"an item that was not asked for", `{"Responses":{"garo":[` + wire(t, &store.Lock{Key: "z"}, 1, "") + `]}}`, "lock#z, which was not asked for"},
			{"an item without key", `{"Responses":{"garo":[{"key":{"S":"a"}}]}}`, "without a key"},
			{"an item that is not GARO's", `{"Responses":{"garo":[{"item":{"S":"lock#a"}}]}}`, "lock#a"},
		} {
			if got, err := over(&dynamo{script: []answer{{status: 200, body: c.body}}}).Get(t.Context(), a, b); err == nil || !strings.Contains(err.Error(), c.says) {
				t.Errorf("Get of %s = %v, %v; want an error that says %q", c.name, got, err, c.says)
			}
		}
	})
}

func TestDuePagesAreReadAsTheyAreNeeded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		page := func(more bool, names ...string) answer {
			var items []string
			for _, n := range names {
				items = append(items, `{"item":{"S":"`+n+`"}}`)
			}
			last := ""
			if more {
				last = `,"LastEvaluatedKey":{"item":{"S":"` + names[len(names)-1] + `"},"due":{"S":"due"},"due_at":{"S":"2026-03-01T12:00:00.000000000Z"}}`
			}
			return answer{status: 200, body: `{"Items":[` + strings.Join(items, ",") + `]` + last + `}`}
		}
		script := []answer{page(true, "request#a", "runner#b"), failed(400, "ThrottlingException", "Rate exceeded"), page(true, "machine#c"), page(false, "sweep#d")}
		d := &dynamo{script: script}
		var got []string
		for ref, err := range over(d).Due(t.Context(), noon) {
			if err != nil {
				got = append(got, "error")
				if !strings.Contains(err.Error(), "machine") || !strings.Contains(err.Error(), "delete it") {
					t.Errorf("Due = %v, want an error that names what is not GARO's and says what to do", err)
				}
				continue
			}
			got = append(got, ref.String())
			if want := map[string]int{"request#a": 1, "runner#b": 1, "sweep#d": 4}[ref.String()]; len(d.calls) != want {
				t.Errorf("%d calls when %s is yielded, want %d", len(d.calls), ref, want)
			}
		}
		if want := []string{"request#a", "runner#b", "error", "sweep#d"}; !slices.Equal(got, want) {
			t.Errorf("Due = %v, want %v", got, want)
		}
		for n, key := range []string{"", "runner#b", "runner#b", "machine#c"} {
			var sent struct {
				ExclusiveStartKey map[string]map[string]string
				Limit             int
			}
			if err := json.Unmarshal([]byte(d.bodies[n]), &sent); err != nil || sent.ExclusiveStartKey["item"]["S"] != key {
				t.Errorf("call %d begins behind %v, %v; want %q", n+1, sent.ExclusiveStartKey, err, key)
			}
		}
		d = &dynamo{script: script}
		for range over(d).Due(t.Context(), noon) {
			break
		}
		if len(d.calls) != 1 {
			t.Errorf("a caller that stops at the first made %d calls, want 1", len(d.calls))
		}
	})
}

func TestLookBoundsTheEntriesThatAListReads(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		behind := func(looked int, at string) answer { // a page of the index on which nothing matches
			return answer{status: 200, body: fmt.Sprintf(`{"Items":[],"ScannedCount":%d,"LastEvaluatedKey":{"item":{"S":"request#x"},"list":{"S":"request"},"listed_at":{"S":%q}}}`, looked, at)}
		}
		d := &dynamo{script: []answer{behind(3000, "2026-03#c"), behind(1500, "2026-03#b"), behind(500, "2026-03#a"), failed(400, "ValidationException", "a fourth page")}}
		var more *store.MoreError
		for i, err := range over(d).List(t.Context(), store.Filter{States: []string{"failed"}, Limit: 51, Look: 5000}) {
			if i != nil || !errors.As(err, &more) {
				t.Fatalf("List yields %v, %v; want a MoreError alone", i, err)
			}
		}
		if more == nil || more.After != "2026-03#a" || len(d.calls) != 3 {
			t.Errorf("List ends with %v after %d calls, want more after 2026-03#a after 3", more, len(d.calls))
		}
		for n, want := range []int{5000, 2000, 500} {
			var sent struct{ Limit int }
			if err := json.Unmarshal([]byte(d.bodies[n]), &sent); err != nil || sent.Limit != want {
				t.Errorf("call %d looks at %d entries at most, %v; want %d", n+1, sent.Limit, err, want)
			}
		}
	})
}

func TestListLeavesOutWhatTheIndexIsWrongAbout(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		request := func(id, repository string, state store.RequestState) string {
			r := accepted(id, noon)
			r.State, r.Repository.ID = state, repository
			return wire(t, &r, 1, "a/1")
		}
		d := &dynamo{script: []answer{
			{status: 200, body: `{"Items":[{"item":{"S":"request#moved"}},{"item":{"S":"request#right"}},{"item":{"S":"request#deleted"}},{"item":{"S":"request#ready"}}]}`},
			{status: 200, body: `{"Responses":{"garo":[` + strings.Join([]string{
				request("ready", "42", store.Ready), request("moved", "43", store.Accepted), request("right", "42", store.Accepted),
			}, ",") + `]}}`},
		}}
		var got []string
		for i, err := range over(d).List(t.Context(), store.Filter{Repository: "42", States: []string{"accepted"}}) {
			if err != nil {
				t.Fatal(err)
			}
			got = append(got, i.Ref().ID)
		}
		if want := []string{"right"}; !slices.Equal(got, want) || len(d.calls) != 2 {
			t.Errorf("List = %v in %d calls, want %v in 2", got, len(d.calls), want)
		}
		for _, err := range over(&dynamo{script: []answer{{status: 200, body: `{"Items":[{"item":{"S":"machine#a"}}]}`}}}).List(t.Context(), store.Filter{}) {
			if err == nil || !strings.Contains(err.Error(), "machine") {
				t.Errorf("List of what is not GARO's = %v, want an error that names it", err)
			}
		}
	})
}

// What a query asks for, beside the index: its conditions with the values in them.
func asked(t *testing.T, body string) string {
	t.Helper()
	var sent struct {
		IndexName, KeyConditionExpression, FilterExpression string
		ExpressionAttributeNames                            map[string]string
		ExpressionAttributeValues                           map[string]map[string]string
		Limit                                               int
	}
	if err := json.Unmarshal([]byte(body), &sent); err != nil {
		t.Fatal(err)
	}
	var pairs []string
	for name, attribute := range sent.ExpressionAttributeNames {
		pairs = append(pairs, name, attribute)
	}
	for name, value := range sent.ExpressionAttributeValues {
		pairs = append(pairs, name, value["S"])
	}
	said := sent.IndexName + ": " + sent.KeyConditionExpression
	if sent.FilterExpression != "" {
		said += " if " + sent.FilterExpression
	}
	return fmt.Sprintf("%s, %d", strings.NewReplacer(pairs...).Replace(said), sent.Limit)
}

func TestFiltersAreConditionsOfTheIndexThatHasThem(t *testing.T) {
	const from = "2026-03-01T12:00:00.000000000Z#"
	for _, c := range []struct {
		f    store.Filter
		want string
	}{
		{store.Filter{}, "list: list = request, 100"},
		{store.Filter{States: []string{"failed", "expired"}, Look: 5000}, "list: list = request if state IN (failed, expired), 5000"},
		{store.Filter{Kind: store.KindRunner, States: []string{"ended", "busy"}, Look: 5000}, "list: list = runner if state IN (ended, busy), 5000"},
		{store.Filter{Kind: store.KindRunner, States: []string{"online", "busy"}, Limit: 7, Look: 5000}, "open: open_of = runners, 100"},
		{store.Filter{Kind: store.KindRunner, States: []string{"busy"}, Repository: "42", Look: 5000}, "repository: repository_list = runner#42 if state IN (busy), 5000"},
		{store.Filter{Repository: "42", Since: noon, Limit: 51, Look: 5000}, "repository: repository_list = request#42 AND listed_at >= " + from + ", 51"},
		{store.Filter{After: "2027", Limit: 7}, "list: list = request AND listed_at < 2027, 7"},
		{store.Filter{After: "2027", Since: noon, Look: 20}, "list: list = request AND listed_at BETWEEN " + from + " AND 2027, 21"},
		{store.Filter{Name: "acme/shop", Limit: 51, Look: 1000}, "list: list = request, 100"},
		{store.Filter{Kind: store.KindRunner, FoundBy: "i-1", States: []string{"busy"}, Look: 5}, "find: found_by = runner#i-1, 100"},
	} {
		d := &dynamo{script: []answer{{status: 200, body: `{"Items":[]}`}}}
		for i, err := range over(d).List(t.Context(), c.f) {
			t.Fatalf("List(%+v) yields %v, %v; want nothing", c.f, i, err)
		}
		if got := asked(t, d.bodies[0]); got != c.want {
			t.Errorf("List(%+v) asks for %s\nwant %s", c.f, got, c.want)
		}
	}
	d := &dynamo{script: []answer{failed(400, "ValidationException", "the bounds are the wrong way round")}}
	for i, err := range over(d).List(t.Context(), store.Filter{After: "2026-01", Since: noon}) {
		t.Errorf("List of what ends before it begins yields %v, %v", i, err)
	}
	if len(d.calls) != 0 {
		t.Errorf("List of what ends before it begins makes %d calls, want none", len(d.calls))
	}
}

// A version that had no runners in the index open wrote none of its live ones into it.
func TestLiveRunnersOfTheVersionBeforeAreListed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		run := func(id string, after time.Duration) string {
			return wire(t, &store.Runner{ID: id, CreatedAt: noon.Add(after), State: store.RunnerOnline}, 1, "a/1")
		}
		d := &dynamo{script: []answer{
			{status: 200, body: `{"Items":[{"item":{"S":"runner#new"}},{"item":{"S":"runner#both"}}]}`},
			{status: 200, body: `{"Responses":{"garo":[` + run("new", time.Hour) + `,` + run("both", time.Minute) + `]}}`},
			{status: 200, body: `{"Items":[{"item":{"S":"runner#old"}},{"item":{"S":"runner#both"}}],"ScannedCount":5000,"LastEvaluatedKey":{"item":{"S":"runner#x"},"list":{"S":"runner"},"listed_at":{"S":"2026-02#x"}}}`},
			{status: 200, body: `{"Responses":{"garo":[` + run("old", 2*time.Minute) + `,` + run("both", time.Minute) + `]}}`},
			failed(400, "ValidationException", "a look behind the newest"),
		}}
		var got []string
		for i, err := range over(d).List(t.Context(), store.Filter{Kind: store.KindRunner, States: []string{"online"}, Limit: 51, Look: 5000}) {
			if err != nil {
				t.Fatal(err)
			}
			got = append(got, i.Ref().ID)
		}
		if want := []string{"new", "old", "both"}; !slices.Equal(got, want) || len(d.calls) != 4 {
			t.Errorf("List = %v in %d calls, want %v in 4", got, len(d.calls), want)
		}
	})
}

// A version without the index find wrote no found_by.
func TestRecordsOfTheVersionBeforeAreFoundAmongTheNewest(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		run := func(id, instance string) string {
			return wire(t, &store.Runner{ID: id, InstanceID: instance, CreatedAt: noon, State: store.RunnerOnline}, 1, "a/1")
		}
		d := &dynamo{script: []answer{
			{status: 200, body: `{"Items":[]}`},
			{status: 200, body: `{"Items":[{"item":{"S":"runner#one"}},{"item":{"S":"runner#two"}}],"ScannedCount":200,"LastEvaluatedKey":{"item":{"S":"runner#two"},"list":{"S":"runner"},"listed_at":{"S":"2026-03#two"}}}`},
			{status: 200, body: `{"Responses":{"garo":[` + run("one", "i-1") + `,` + run("two", "i-2") + `]}}`},
			failed(400, "ValidationException", "a look behind the newest two hundred"),
		}}
		var got []string
		for i, err := range over(d).List(t.Context(), store.Filter{Kind: store.KindRunner, FoundBy: "i-2"}) {
			if err != nil {
				t.Fatal(err)
			}
			got = append(got, i.Ref().ID)
		}
		if want := []string{"two"}; !slices.Equal(got, want) || len(d.calls) != 3 {
			t.Errorf("List = %v in %d calls, want %v in 3", got, len(d.calls), want)
		}
		if got, want := asked(t, d.bodies[1]), "list: list = runner, 100"; got != want {
			t.Errorf("the second call asks for %s, want %s", got, want)
		}
	})
}

func TestReadsOfItemsAreConsistentAndConditionsShowWhatFailedThem(t *testing.T) {
	d := &dynamo{script: []answer{done, done, done, done}}
	s := over(d)
	a, b := &store.Lock{Key: "a"}, &store.Lock{Key: "b"}
	if _, err := s.Get(t.Context(), a.Ref()); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Get(t.Context(), a.Ref(), b.Ref()); err != nil {
		t.Fatal(err)
	}
	if err := s.Commit(t.Context(), store.Put(a)); err != nil {
		t.Fatal(err)
	}
	if err := s.Commit(t.Context(), store.Put(a), store.Check(b)); err != nil {
		t.Fatal(err)
	}
	for n, want := range []string{
		`"ConsistentRead":true`, `"ConsistentRead":true`,
		`"ReturnValuesOnConditionCheckFailure":"ALL_OLD"`, `"ReturnValuesOnConditionCheckFailure":"ALL_OLD"`,
	} {
		if members := []int{1, 1, 1, 2}; strings.Count(d.bodies[n], want) != members[n] {
			t.Errorf("%s sends %s, want %s in it %d times", d.calls[n], d.bodies[n], want, members[n])
		}
	}
}
