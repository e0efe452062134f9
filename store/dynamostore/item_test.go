package dynamostore_test

import (
	"bytes"
	"encoding/json"
	"flag"
	"fmt"
	"maps"
	"os"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/feature/dynamodb/attributevalue"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb/types"

	"github.com/alphagov/github-actions-runner-orchestration/store"
	"github.com/alphagov/github-actions-runner-orchestration/store/dynamostore"
)

var update = flag.Bool("update", false, "write the golden files again")

var noon = time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)

// readable returns an item of the table in DynamoDB's own JSON, as the console
// shows it.
func readable(t *testing.T, item map[string]types.AttributeValue) json.RawMessage {
	t.Helper()
	b, err := attributevalue.MarshalMapJSON(item)
	if err != nil {
		t.Fatal(err)
	}
	var sorted any
	if err := json.Unmarshal(b, &sorted); err != nil {
		t.Fatal(err)
	}
	var out bytes.Buffer
	e := json.NewEncoder(&out)
	e.SetEscapeHTML(false)
	e.SetIndent("", "  ")
	if err := e.Encode(sorted); err != nil {
		t.Fatal(err)
	}
	return out.Bytes()
}

func TestGoldenItems(t *testing.T) {
	s := online(t, "abcdefghijklmnopqrstuvwxya", noon)
	for _, i := range s.items() {
		item, err := dynamostore.ItemOf(i)
		if err != nil {
			t.Fatal(err)
		}
		got := readable(t, item)
		path := "testdata/" + string(i.Ref().Kind) + ".json"
		if *update {
			if err := os.WriteFile(path, got, 0o644); err != nil {
				t.Fatal(err)
			}
		}
		want, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(got, want) {
			t.Errorf("%s = %s\nwant %s", i.Ref(), got, want)
		}
		// What is in tables must be read by every later version.
		stored, err := attributevalue.UnmarshalMapJSON(want)
		if err != nil {
			t.Fatal(err)
		}
		back, err := dynamostore.ItemFrom(i.Ref(), stored)
		if err != nil {
			t.Fatal(err)
		}
		next := reflect.New(reflect.TypeOf(i).Elem())
		next.Elem().Set(reflect.ValueOf(i).Elem())
		want2 := next.Interface().(store.Item)
		want2.Base().Version++
		if g, w := encoded(t, back), encoded(t, want2); !bytes.Equal(g, w) {
			t.Errorf("%s comes back as %s\nwant %s", i.Ref(), g, w)
		}
	}
}

func encoded(t *testing.T, i store.Item) []byte {
	t.Helper()
	b, err := store.Encode(i)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// tableOnly are the attributes that Schema demands beside an item's own.
func tableOnly() []string {
	s := dynamostore.Schema()
	names := []string{s.Key}
	for _, i := range s.Indexes {
		names = append(names, i.Hash, i.Range)
	}
	return names
}

func TestNoMemberOfAnItemHasTheNameOfAnIndexKey(t *testing.T) {
	for _, i := range []store.Item{&store.Request{}, &store.Runner{}, &store.Lock{}, &store.Pulse{}, &store.Quota{}, &store.Sweep{}} {
		for _, f := range reflect.VisibleFields(reflect.TypeOf(i).Elem()) {
			name, _, _ := strings.Cut(f.Tag.Get("json"), ",")
			if name != "due_at" && slices.Contains(tableOnly(), name) {
				t.Errorf("%T.%s is called %s, which is an attribute of the table's own", i, f.Name, name)
			}
		}
	}
}

// The config is most of a runner's record. It goes when the runner drains, since no
// machine that drains is answered with one; its number and GitHub's id stay. A
// version that still had it in ended records reads one without it, and this one
// reads those.
func TestEndedRunnerIsRecordedWithoutItsConfig(t *testing.T) {
	s := online(t, "abcdefghijklmnopqrstuvwxya", noon)
	s.runner.Config.Sealed = strings.Repeat("c", 5300) // as long as GitHub's are once they are sealed
	c := store.Case{Runner: s.runner, Lock: s.lock, Quota: s.quota}
	c.Runner.Version = 1
	d, _ := c.Finish(noon.Add(time.Hour), lim, store.Instance{ID: s.runner.InstanceID, State: "terminated"}, "EC2 says so", store.Price{})
	ended := d.Runner
	ended.Version = 0 // as the others
	old := ended
	old.Config.Sealed = s.runner.Config.Sealed
	for what, run := range map[string]store.Runner{"online": s.runner, "ended": ended, "ended, of an older version": old} {
		item, err := dynamostore.ItemOf(&run)
		if err != nil {
			t.Fatal(err)
		}
		back, err := dynamostore.ItemFrom(run.Ref(), item)
		if err != nil {
			t.Fatal(err)
		}
		size := len(encoded(t, &run))
		t.Logf("a runner that is %s has %d bytes", what, size)
		got := back.(*store.Runner).Config
		if got != run.Config || got.N != 1 || got.RunnerID != 501 {
			t.Errorf("%s: config %d of runner %d comes back, want 1 of 501", what, got.N, got.RunnerID)
		}
		if small := what == "ended"; small != (got.Sealed == "") || small != (size < 3500) {
			t.Errorf("%s: %d bytes with a config of %d, want that only an ended one is small", what, size, len(got.Sealed))
		}
	}
}

func TestOnlyWhatIsDueOrListedIsInAnIndex(t *testing.T) {
	due := store.Meta{DueAt: noon.Add(time.Millisecond)}
	repository := store.Repository{ID: "42"}
	for _, c := range []struct {
		name string
		item store.Item
		want map[string]string
	}{
		{"a request", &store.Request{Meta: due, ID: "r", CreatedAt: noon, Repository: repository}, map[string]string{
			"item": "request#r", "due": "due", "due_at": "2026-03-01T12:00:00.001000000Z",
			"list": "request", "listed_at": "2026-03-01T12:00:00.000000000Z#r", "repository_list": "request#42",
		}},
		{"a runner that is not over", &store.Runner{ID: "x", State: store.RunnerOnline, CreatedAt: noon, Repository: repository}, map[string]string{
			"item": "runner#x", "list": "runner", "listed_at": "2026-03-01T12:00:00.000000000Z#x", "repository_list": "runner#42", "open_of": "runners",
		}},
		{"a request that is final", &store.Request{ID: "r", CreatedAt: noon, Repository: repository}, map[string]string{
			"item": "request#r", "list": "request", "listed_at": "2026-03-01T12:00:00.000000000Z#r", "repository_list": "request#42",
		}},
		{"a runner", &store.Runner{Meta: due, ID: "x", CreatedAt: noon.In(time.FixedZone("east", 3600)), Repository: repository}, map[string]string{
			"item": "runner#x", "due": "due", "due_at": "2026-03-01T12:00:00.001000000Z",
			"list": "runner", "listed_at": "2026-03-01T12:00:00.000000000Z#x", "repository_list": "runner#42",
		}},
		{"a runner of another GitHub server", &store.Runner{ID: "x", CreatedAt: noon, Repository: store.Repository{Server: "ghes.example", ID: "42"}}, map[string]string{
			"item": "runner#x", "list": "runner", "listed_at": "2026-03-01T12:00:00.000000000Z#x", "repository_list": "runner#42",
		}},
		{"a request of a workflow run", &store.Request{ID: "r", CreatedAt: noon, Repository: repository, Origin: store.Origin{RunID: "7001"}}, map[string]string{
			"item": "request#r", "list": "request", "listed_at": "2026-03-01T12:00:00.000000000Z#r", "repository_list": "request#42", "found_by": "request#7001",
		}},
		{"a runner with an instance", &store.Runner{ID: "x", CreatedAt: noon, Repository: repository, InstanceID: "i-1", RunID: "7001"}, map[string]string{
			"item": "runner#x", "list": "runner", "listed_at": "2026-03-01T12:00:00.000000000Z#x", "repository_list": "runner#42", "found_by": "runner#i-1",
		}},
		{"a sweep", &store.Sweep{Meta: due, Key: "s"}, map[string]string{"item": "sweep#s", "due": "due", "due_at": "2026-03-01T12:00:00.001000000Z"}},
		{"a lock", &store.Lock{Key: "k"}, map[string]string{"item": "lock#k"}},
		{"a pulse", &store.Pulse{Key: "k"}, map[string]string{"item": "pulse#k"}},
		{"a quota", &store.Quota{Account: "1"}, map[string]string{"item": "quota#1"}},
	} {
		item, err := dynamostore.ItemOf(c.item)
		if err != nil {
			t.Fatal(err)
		}
		got := map[string]string{}
		for _, name := range append(tableOnly(), "due_at") {
			if v, ok := item[name].(*types.AttributeValueMemberS); ok {
				got[name] = v.Value
			}
		}
		if !maps.Equal(got, c.want) {
			t.Errorf("%s has %v, want %v", c.name, got, c.want)
		}
		if c.item.Base().Version != 0 {
			t.Errorf("%s: version %d after it was encoded, want 0 as before", c.name, c.item.Base().Version)
		}
	}
}

func TestDueTimesSortAsTheyFollow(t *testing.T) {
	var last string
	for _, at := range []time.Time{
		noon, noon.Add(1), noon.Add(10), noon.Add(time.Millisecond), noon.Add(900 * time.Millisecond),
		noon.Add(time.Second), noon.Add(time.Second + 1).In(time.FixedZone("west", -11*3600)), noon.AddDate(1, 0, 0),
	} {
		item, err := dynamostore.ItemOf(&store.Sweep{Key: "s", Meta: store.Meta{DueAt: at}})
		if err != nil {
			t.Fatal(err)
		}
		got := item["due_at"].(*types.AttributeValueMemberS).Value
		if got <= last || len(got) != len("2026-03-01T12:00:00.000000000Z") {
			t.Errorf("due_at %s is written as %s after %s, want a later text of the same width", at, got, last)
		}
		last = got
	}
}

func TestWhatIsNotThereIsLeftOut(t *testing.T) {
	for _, i := range []store.Item{&store.Request{ID: "r"}, &store.Runner{ID: "x"}, &store.Sweep{Key: "s"}} {
		item, err := dynamostore.ItemOf(i)
		if err != nil {
			t.Fatal(err)
		}
		for name, v := range item {
			if null, ok := v.(*types.AttributeValueMemberNULL); ok {
				t.Errorf("%s of %s is %+v, want no such attribute", name, i.Ref(), null)
			}
		}
	}
}

func TestItemTooLargeIsRefused(t *testing.T) {
	const most = 400 << 10
	r := accepted("r", noon)
	r.BodyHash = strings.Repeat("é", most/2)
	_, err := dynamostore.ItemOf(&r)
	if err == nil || !strings.Contains(err.Error(), "request#r has") || strings.Contains(err.Error(), "é") {
		t.Fatalf("encode = %v, want an error that names the item and does not quote it", err)
	}
	var size int
	if _, err := fmt.Sscanf(err.Error(), "request#r has %d bytes", &size); err != nil {
		t.Fatal(err)
	}
	r.BodyHash = strings.Repeat("x", most-(size-most))
	if _, err := dynamostore.ItemOf(&r); err != nil {
		t.Errorf("encode %d bytes = %v, want no error", most, err)
	}
	r.BodyHash += "x"
	if _, err := dynamostore.ItemOf(&r); err == nil {
		t.Errorf("encode %d bytes = nil, want an error", most+1)
	}
}

// What counts are names and texts in bytes, two for a number of one digit, one for true
// or null, three for a list or map, and one for every element of it.
func TestItemIsAsLargeAsDynamoDBCounts(t *testing.T) {
	item := map[string]types.AttributeValue{
		"s": &types.AttributeValueMemberS{Value: "é"},                                                                                // 1 + 2
		"n": &types.AttributeValueMemberN{Value: "7"},                                                                                // 1 + 2
		"b": &types.AttributeValueMemberBOOL{Value: true},                                                                            // 1 + 1
		"l": &types.AttributeValueMemberL{Value: []types.AttributeValue{&types.AttributeValueMemberS{}}},                             // 1 + 3 + 1
		"m": &types.AttributeValueMemberM{Value: map[string]types.AttributeValue{"k": &types.AttributeValueMemberNULL{Value: true}}}, // 1 + 3 + 1 + 1 + 1
	}
	if got := dynamostore.SizeOf(&types.AttributeValueMemberM{Value: item}); got != 3+5+3+3+2+5+7 {
		t.Errorf("size = %d, want %d", got, 3+5+3+3+2+5+7)
	}
}

func TestForeignItemIsAnError(t *testing.T) {
	text := func(s string) types.AttributeValue { return &types.AttributeValueMemberS{Value: s} }
	number := func(s string) types.AttributeValue { return &types.AttributeValueMemberN{Value: s} }
	ref := store.Ref{Kind: store.KindLock, ID: "k"}
	for _, c := range []struct {
		name string
		item map[string]types.AttributeValue
		want string
	}{
		{"no key", map[string]types.AttributeValue{"key": text("k")}, "another item"},
		{"another key", map[string]types.AttributeValue{"item": text("lock#other"), "key": text("other")}, "another item"},
		{"a key that is a number", map[string]types.AttributeValue{"item": number("1")}, "another item"},
		{"no version", map[string]types.AttributeValue{"item": text("lock#k"), "key": text("k")}, "no version"},
		{"an id that is not its key's", map[string]types.AttributeValue{"item": text("lock#k"), "key": text("j"), "version": number("1")}, "says that it is"},
		{"a version that is text", map[string]types.AttributeValue{"item": text("lock#k"), "key": text("k"), "version": text("1")}, "version"},
		{"a number that is none", map[string]types.AttributeValue{"item": text("lock#k"), "key": text("k"), "version": number("1x")}, "1x"},
		{"a number with a sign that JSON has not", map[string]types.AttributeValue{"item": text("lock#k"), "key": text("k"), "version": number("+1")}, "+1"},
		{"a new member that is no number", map[string]types.AttributeValue{"item": text("lock#k"), "key": text("k"), "version": number("1"), "x": number("01")}, "01"},
		{"a text that is a number", map[string]types.AttributeValue{"item": text("lock#k"), "key": text("k"), "version": number("1"), "runner": number("1")}, "runner: "},
		{"a time that is a map", map[string]types.AttributeValue{"item": text("lock#k"), "key": text("k"), "version": number("1"), "exp": &types.AttributeValueMemberM{}}, "exp: "},
		{"a time that is none", map[string]types.AttributeValue{"item": text("lock#k"), "key": text("k"), "version": number("1"), "exp": text("2026-03-01")}, "2026-03-01"},
		{"a name in other letters", map[string]types.AttributeValue{"item": text("lock#k"), "key": text("k"), "version": number("1"), "Version": number("2")}, "Version: want version"},
		{"a set", map[string]types.AttributeValue{"item": text("lock#k"), "key": text("k"), "x": &types.AttributeValueMemberSS{Value: []string{"a"}}}, "x: a binary value or a set"},
		{"bytes in a list", map[string]types.AttributeValue{"item": text("lock#k"), "x": &types.AttributeValueMemberL{Value: []types.AttributeValue{&types.AttributeValueMemberB{Value: []byte("a")}}}}, "x: a binary value or a set"},
	} {
		if i, err := dynamostore.ItemFrom(ref, c.item); err == nil || !strings.Contains(err.Error(), c.want) || !strings.Contains(err.Error(), "lock#k") {
			t.Errorf("%s: %v, %v; want an error about lock#k that says %q", c.name, i, err, c.want)
		}
	}
}

func FuzzItem(f *testing.F) {
	f.Add([]byte(`{"item":{"S":"request#r"},"id":{"S":"r"},"version":{"N":"1"},"labels":{"L":[{"S":"a"}]},"tries":{"N":"9007199254740993"}}`))
	f.Add([]byte(`{"item":{"S":"request#r"},"id":{"S":"r"},"version":{"N":"1"},"error":{"M":{"retryable":{"BOOL":true}}},"history":{"NULL":true}}`))
	ref := store.Ref{Kind: store.KindRequest, ID: "r"}
	f.Fuzz(func(t *testing.T, b []byte) {
		item, err := attributevalue.UnmarshalMapJSON(b)
		if err != nil || len(item) == 0 {
			return
		}
		i, err := dynamostore.ItemFrom(ref, item)
		if err != nil {
			return
		}
		// Whatever is read can be written, and is then read as the same.
		again, err := dynamostore.ItemOf(i)
		if err != nil {
			t.Fatalf("%s was read and cannot be written: %v", encoded(t, i), err)
		}
		back, err := dynamostore.ItemFrom(ref, again)
		if err != nil {
			t.Fatalf("%s was written and cannot be read: %v", encoded(t, i), err)
		}
		back.Base().Version--
		if g, w := encoded(t, back), encoded(t, i); !bytes.Equal(g, w) {
			t.Errorf("%s comes back as %s", w, g)
		}
	})
}
