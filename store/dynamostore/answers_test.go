package dynamostore_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/credentials"
	"github.com/aws/aws-sdk-go-v2/feature/dynamodb/attributevalue"

	"github.com/alphagov/github-actions-runner-orchestration/internal/aws/awshttp"
	"github.com/alphagov/github-actions-runner-orchestration/store"
	"github.com/alphagov/github-actions-runner-orchestration/store/dynamostore"
)

// answer is one answer of DynamoDB, in the form in which it comes over the wire.
type answer struct {
	status int
	body   string
	err    error // there is no answer
}

// dynamo answers calls with a script, and repeats its last line for ever.
type dynamo struct {
	mu     sync.Mutex
	script []answer
	calls  []string // the operations that were called
	bodies []string
}

func (d *dynamo) RoundTrip(r *http.Request) (*http.Response, error) {
	body, err := io.ReadAll(r.Body)
	if err != nil {
		return nil, err
	}
	d.mu.Lock()
	a := d.script[min(len(d.calls), len(d.script)-1)]
	d.calls, d.bodies = append(d.calls, operation(r)), append(d.bodies, string(body))
	d.mu.Unlock()
	if a.status == silent {
		<-r.Context().Done()
		return nil, r.Context().Err()
	}
	if a.err != nil {
		return nil, a.err
	}
	return &http.Response{
		StatusCode: a.status, Header: http.Header{"Content-Type": {"application/x-amz-json-1.0"}},
		Body: io.NopCloser(strings.NewReader(a.body)), Request: r,
	}, nil
}

// silent is the status of an answer that never comes.
const silent = -1

// attempt is how long one exchange may take here.
const attempt = 2 * time.Second

// over returns the store that speaks to d.
func over(d http.RoundTripper) *dynamostore.Store {
	return dynamostore.New(aws.Config{
		Region: "eu-west-2", Credentials: credentials.NewStaticCredentialsProvider("AKID", "wJalrXUtnFEMI", ""),
		HTTPClient: &http.Client{Transport: awshttp.Transport{Base: d}, Timeout: attempt},
	}, "garo", nil)
}

var done = answer{status: 200, body: `{}`}

// failed is an error as DynamoDB sends it.
func failed(status int, code, message string) answer {
	return answer{status: status, body: fmt.Sprintf(`{"__type":"com.amazonaws.dynamodb.v20120810#%s","message":%q}`, code, message)}
}

// cancelled is a transaction that was cancelled for those reasons.
func cancelled(reasons ...string) answer {
	return answer{status: 400, body: `{"__type":"com.amazonaws.dynamodb.v20120810#TransactionCanceledException","CancellationReasons":[` +
		strings.Join(reasons, ",") + `],"Message":"Transaction cancelled, please refer cancellation reasons for specific reasons"}`}
}

const (
	none     = `{"Code":"None"}`
	conflict = `{"Code":"TransactionConflict","Message":"Transaction is ongoing for the item"}`
	throttle = `{"Code":"ThrottlingError","Message":"Throughput exceeds the current capacity for one or more global secondary indexes."}`
	capacity = `{"Code":"ProvisionedThroughputExceeded","Message":"The level of configured provisioned throughput for one or more global secondary indexes of the table was exceeded."}`
	tooLarge = `{"Code":"ItemCollectionSizeLimitExceeded","Message":"Item collection size limit exceeded."}`
	invalid  = `{"Code":"ValidationError","Message":"Item size to update has exceeded the maximum allowed size."}`
	absent   = `{"Code":"ConditionalCheckFailed","Message":"The conditional request failed"}`
)

// wire returns an item that is stored in that version by that writer, as DynamoDB
// sends it.
func wire(t *testing.T, i store.Item, version int64, writer string) string {
	t.Helper()
	i.Base().Version, i.Base().Writer = version-1, writer
	item, err := dynamostore.ItemOf(i)
	if err != nil {
		t.Fatal(err)
	}
	b, err := attributevalue.MarshalMapJSON(item)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

func signed(i store.Item, version int64, writer string) store.Item {
	i.Base().Version, i.Base().Writer = version, writer
	return i
}

func TestAnswersToACommit(t *testing.T) {
	lost := func(item string) string {
		return `{"Code":"ConditionalCheckFailed","Item":` + item + `,"Message":"The conditional request failed"}`
	}
	refused := func(item string) answer {
		return answer{status: 400, body: `{"__type":"com.amazonaws.dynamodb.v20120810#ConditionalCheckFailedException","Item":` + item + `,"message":"The conditional request failed"}`}
	}
	l := func(version int64, writer string) string { return wire(t, &store.Lock{Key: "k"}, version, writer) }
	q := func(version int64, writer string) string {
		return wire(t, &store.Quota{Account: "1"}, version, writer)
	}
	gone := failed(400, "ConditionalCheckFailedException", "The conditional request failed")
	reset := answer{err: errors.New("read tcp 10.0.0.1:443: connection reset by peer")}
	const put, transact, read, readMany = "PutItem", "TransactWriteItems", "GetItem", "BatchGetItem"
	busy := func(op string, n int) []string { return slices.Repeat([]string{op}, n) }

	// Each commits the lock, in version 3 by writer a/1, alone or with the quota in
	// version 5 and a check of the sweep in version 7.
	const one, many = false, true
	for _, c := range []struct {
		name   string
		many   bool
		script []answer
		calls  []string // nil: until patience ends
		// At most one: items as the conflict shows them, or what the error says.
		conflict []string
		says     string
	}{
		{"Written", one, []answer{done}, []string{put}, nil, ""},
		{"LostToAnother", one, []answer{refused(l(4, "b/1"))}, []string{put}, []string{"lock#k version 4"}, ""},
		{"LostToADeletion", one, []answer{gone}, []string{put}, []string{"lock#k version 0"}, ""},
		{"OwnWriteIsRecognised", one, []answer{refused(l(4, "a/1"))}, []string{put}, nil, ""},
		{"OwnWriteOfAnotherVersionIsNot", one, []answer{refused(l(5, "a/1"))}, []string{put}, []string{"lock#k version 5"}, ""},
		{"LostAnswerThenOwnWrite", one, []answer{reset, refused(l(4, "a/1"))}, busy(put, 2), nil, ""},
		{"LostAnswerThenLost", one, []answer{reset, refused(l(4, "b/1"))}, busy(put, 2), []string{"lock#k version 4"}, ""},
		{"SilenceThenOwnWrite", one, []answer{{status: silent}, refused(l(4, "a/1"))}, busy(put, 2), nil, ""},
		{"BrokenAnswerThenOwnWrite", one, []answer{{status: 200, body: `{"Attr`}, refused(l(4, "a/1"))}, busy(put, 2), nil, ""},
		{"ATransactionIsInTheWay", one, []answer{failed(400, "TransactionConflictException", "Transaction is ongoing for the item"), done}, busy(put, 2), nil, ""},
		{"ATransactionIsInTheWayAndWins", one, []answer{failed(400, "TransactionConflictException", "Transaction is ongoing for the item"), refused(l(4, "b/1"))}, busy(put, 2), []string{"lock#k version 4"}, ""},
		{"ATransactionIsAlwaysInTheWay", one, []answer{failed(400, "TransactionConflictException", "Transaction is ongoing for the item")}, nil, nil, "after 20s"},
		{"ThroughputExceeded", one, []answer{failed(400, "ProvisionedThroughputExceededException", "The level of configured provisioned throughput for the table was exceeded."), done}, busy(put, 2), nil, ""},
		{"Throttled", one, []answer{{status: 400, body: `{"__type":"com.amazon.coral.availability#ThrottlingException","message":"Rate exceeded"}`}, done}, busy(put, 2), nil, ""},
		{"RequestLimit", one, []answer{failed(400, "RequestLimitExceeded", "Throughput exceeds the current throughput limit for your account."), done}, busy(put, 2), nil, ""},
		{"AlwaysThrottled", one, []answer{failed(400, "ThrottlingException", "Rate exceeded")}, busy(put, 12), nil, "after 12 failures"},
		{"ServerError", one, []answer{failed(500, "InternalServerError", "The request processing has failed"), done}, busy(put, 2), nil, ""},
		{"Unavailable", one, []answer{{status: 503, body: "<html>Service Unavailable</html>"}, done}, busy(put, 2), nil, ""},
		{"CollectionTooLarge", one, []answer{failed(400, "ItemCollectionSizeLimitExceededException", "Collection size exceeded.")}, []string{put}, nil, "Collection size exceeded"},
		{"NoTable", one, []answer{failed(400, "ResourceNotFoundException", "Requested resource not found")}, []string{put}, nil, "compare GARO_TABLE"},
		{"NotAllowed", one, []answer{{status: 400, body: `{"__type":"com.amazon.coral.service#AccessDeniedException","Message":"User: arn:aws:sts::123456789012:assumed-role/garo-api is not authorized to perform: dynamodb:PutItem"}`}}, []string{put}, nil, "compare its policy"},
		{"UnknownCredentials", one, []answer{{status: 400, body: `{"__type":"com.amazon.coral.service#UnrecognizedClientException","message":"The security token included in the request is invalid."}`}}, []string{put}, nil, "AWS does not know these credentials"},
		{"ExpiredCredentials", one, []answer{{status: 400, body: `{"__type":"com.amazon.coral.service#ExpiredTokenException","message":"The security token included in the request is expired"}`}}, []string{put}, nil, "have expired"},
		{"OtherTable", one, []answer{{status: 400, body: `{"__type":"com.amazon.coral.validate#ValidationException","message":"The provided key element does not match the schema"}`}}, []string{put}, nil, "not as Terraform makes it"},
		{"ForeignItemInTheWay", one, []answer{refused(`{"item":{"S":"lock#k"},"key":{"S":"k"}}`)}, []string{put}, nil, "GARO did not write it"},

		{"AllWritten", many, []answer{done}, []string{transact}, nil, ""},
		{"FirstLost", many, []answer{cancelled(lost(l(4, "b/1")), none, none)}, []string{transact}, []string{"lock#k version 4"}, ""},
		{"FirstGone", many, []answer{cancelled(absent, none, none)}, []string{transact}, []string{"lock#k version 0"}, ""},
		{"TwoLost", many, []answer{cancelled(lost(l(4, "b/1")), lost(q(9, "b/2")), none)}, []string{transact}, []string{"lock#k version 4", "quota#1 version 9"}, ""},
		{"CheckLost", many, []answer{cancelled(none, none, lost(wire(t, &store.Sweep{Key: "s"}, 8, "b/1")))}, []string{transact}, []string{"sweep#s version 8"}, ""},
		{"OwnWriteOfAllIsRecognised", many, []answer{cancelled(lost(l(4, "a/1")), lost(q(6, "a/1")), none)}, []string{transact}, nil, ""},
		{"OneOwnWriteShowsAll", many, []answer{cancelled(lost(l(5, "b/1")), lost(q(6, "a/1")), none)}, []string{transact}, nil, ""},
		{"CheckIsNoOwnWrite", many, []answer{cancelled(none, none, lost(wire(t, &store.Sweep{Key: "s"}, 8, "a/1")))}, []string{transact}, []string{"sweep#s version 8"}, ""},
		{"LostAnswerIsAskedForAgain", many, []answer{reset, done}, busy(transact, 2), nil, ""},
		{"StillInProgress", many, []answer{failed(400, "TransactionInProgressException", "The transaction with the given request token is already in progress."), done}, busy(transact, 2), nil, ""},
		{"TransactionsMeet", many, []answer{cancelled(none, conflict, none), done}, busy(transact, 2), nil, ""},
		{"TransactionsMeetAndTheOtherWins", many, []answer{cancelled(conflict, none, none), cancelled(lost(l(4, "b/1")), none, none)}, busy(transact, 2), []string{"lock#k version 4"}, ""},
		{"TransactionsAlwaysMeet", many, []answer{cancelled(conflict, conflict, none)}, nil, nil, "after 20s"},
		{"OneThrottled", many, []answer{cancelled(none, throttle, none), cancelled(none, capacity, none), done}, busy(transact, 3), nil, ""},
		{"OneAlwaysThrottled", many, []answer{cancelled(conflict, throttle, none)}, busy(transact, 12), nil, "after 12 failures"},
		{"WholeThrottled", many, []answer{failed(400, "ProvisionedThroughputExceededException", "exceeded"), done}, busy(transact, 2), nil, ""},
		{"LostAndMetAnotherThatIsAsItWas", many, []answer{
			cancelled(lost(l(4, "b/1")), conflict, none), {status: 200, body: `{"Item":` + q(5, "c/1") + `}`},
		}, []string{transact, read}, []string{"lock#k version 4"}, ""},
		{"LostAndMetAnotherThatChanged", many, []answer{
			cancelled(conflict, lost(q(6, "b/1")), none), {status: 200, body: `{"Item":` + l(9, "c/1") + `}`},
		}, []string{transact, read}, []string{"lock#k version 9", "quota#1 version 6"}, ""},
		{"LostAndMetOwnWrite", many, []answer{
			cancelled(lost(l(5, "b/1")), conflict, throttle),
			{status: 200, body: `{"Responses":{"garo":[` + q(6, "a/1") + `]}}`},
		}, []string{transact, readMany}, nil, ""},
		{"LostWinsOverWhatIsWrong", many, []answer{cancelled(lost(l(4, "b/1")), invalid, none)}, []string{transact}, []string{"lock#k version 4"}, ""},
		{"TooLarge", many, []answer{cancelled(none, tooLarge, none)}, []string{transact}, nil, "quota#1: ItemCollectionSizeLimitExceeded"},
		{"Invalid", many, []answer{cancelled(none, conflict, invalid)}, []string{transact}, nil, "sweep#s: ValidationError: Item size"},
		{"ReasonsThatDoNotFit", many, []answer{cancelled(none)}, []string{transact}, nil, "3 changes were cancelled for 1 reasons"},
		{"CancelledForNoReason", many, []answer{cancelled(none, none, none)}, []string{transact}, nil, "TransactionCanceledException"},
		{"TokenOfAnotherTransaction", many, []answer{failed(400, "IdempotentParameterMismatchException", "mismatch")}, []string{transact}, nil, "IdempotentParameterMismatchException"},
		{"NoTableForAll", many, []answer{failed(400, "ResourceNotFoundException", "Requested resource not found")}, []string{transact}, nil, "compare GARO_TABLE"},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				d := &dynamo{script: c.script}
				changes := []store.Change{store.Put(signed(&store.Lock{Key: "k"}, 3, "a/1"))}
				if c.many {
					changes = append(changes, store.Put(signed(&store.Quota{Account: "1"}, 5, "a/1")), store.Check(signed(&store.Sweep{Key: "s"}, 7, "x/1")))
				}
				err := over(d).Commit(t.Context(), changes...)
				if c.calls == nil { // as many as there was time for
					if len(d.calls) < 20 || len(d.calls) > 80 {
						t.Errorf("%d calls in 20 s, want about 40", len(d.calls))
					}
				} else if !slices.Equal(d.calls, c.calls) {
					t.Errorf("calls = %v, want %v", d.calls, c.calls)
				}
				want := int64(3)
				switch lost, ok := errors.AsType[*store.ConflictError](err); {
				case c.says != "":
					if err == nil || ok || !strings.Contains(err.Error(), c.says) || !strings.Contains(err.Error(), "table garo in eu-west-2") {
						t.Errorf("Commit = %v, want an error about table garo that says %q and is no conflict", err, c.says)
					}
				case c.conflict != nil:
					var got []string
					if ok {
						for _, i := range lost.Current {
							got = append(got, fmt.Sprintf("%s version %d", i.Ref(), i.Base().Version))
						}
					}
					if !slices.Equal(got, c.conflict) {
						t.Errorf("Commit = %v, conflict over %v; want %v", err, got, c.conflict)
					}
				default:
					want = 4
					if err != nil {
						t.Errorf("Commit = %v, want nil", err)
					}
				}
				if got := changes[0].Item.Base().Version; got != want {
					t.Errorf("version of the caller's lock = %d, want %d", got, want)
				}
			})
		})
	}
}

func TestTriesOfOneTransactionCarryOneToken(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := &dynamo{script: []answer{{err: io.ErrUnexpectedEOF}, cancelled(conflict, none), done}}
		s := over(d)
		tokens := map[string]bool{}
		for range 2 {
			if err := s.Commit(t.Context(), store.Put(&store.Lock{Key: "k"}), store.Put(&store.Lock{Key: "j"})); err != nil {
				t.Fatal(err)
			}
			for _, body := range d.bodies {
				var sent struct{ ClientRequestToken string }
				if err := json.Unmarshal([]byte(body), &sent); err != nil || sent.ClientRequestToken == "" || len(sent.ClientRequestToken) > 36 {
					t.Errorf("request token %q, %v; want one of 1 to 36 characters", sent.ClientRequestToken, err)
				}
				tokens[sent.ClientRequestToken] = true
			}
			d.bodies = nil
		}
		if len(tokens) != 2 || len(d.calls) != 4 {
			t.Errorf("two commits in %d calls had %d tokens, want 4 and 2", len(d.calls), len(tokens))
		}
	})
}

func TestUnsignedPutIsNotRepeatedBlindly(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		for _, c := range []struct {
			name  string
			first answer
			calls int
		}{
			{"lost answer", answer{err: io.ErrUnexpectedEOF}, 1},
			{"server error", failed(500, "InternalServerError", "failed"), 1},
			{"throttled", failed(400, "ThrottlingException", "Rate exceeded"), 2},
		} {
			d := &dynamo{script: []answer{c.first, done}}
			err := over(d).Commit(t.Context(), store.Put(&store.Lock{Key: "k"}))
			if len(d.calls) != c.calls || (err == nil) != (c.calls == 2) || errors.Is(err, store.ErrConflict) {
				t.Errorf("%s: %d calls, %v; want %d calls", c.name, len(d.calls), err, c.calls)
			}
		}
	})
}

func TestBackoffGrowsAndEndsWithTheContext(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		began := time.Now()
		d := &dynamo{script: []answer{failed(400, "ThrottlingException", "Rate exceeded")}}
		dry := io.MultiReader() // a source without a byte makes every wait the longest
		s := dynamostore.New(aws.Config{
			Region: "eu-west-2", Credentials: credentials.NewStaticCredentialsProvider("AKID", "s", ""), HTTPClient: &http.Client{Transport: d},
		}, "garo", dry)
		if err := s.Commit(t.Context(), store.Put(&store.Lock{Key: "k"})); err == nil {
			t.Error("Commit = nil, want an error")
		}
		// 20+40+80+160+320+640 ms, and 1 s five times.
		if got, want := time.Since(began), 6260*time.Millisecond; got != want {
			t.Errorf("twelve tries took %v, want %v", got, want)
		}
		ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
		defer cancel()
		d.calls = nil
		if err := s.Commit(ctx, store.Put(&store.Lock{Key: "k"})); !errors.Is(err, context.DeadlineExceeded) || errors.Is(err, store.ErrConflict) {
			t.Errorf("Commit = %v, want the end of the context", err)
		}
		if got := len(d.calls); got != 3 { // at 0, 20 and 60 ms
			t.Errorf("%d calls within 100 ms, want 3", got)
		}
	})
}

func TestCancelDuringACallIsTheContextsError(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := &dynamo{script: []answer{{status: silent}}}
		ctx, cancel := context.WithCancel(t.Context())
		time.AfterFunc(time.Second, cancel)
		err := over(d).Commit(ctx, store.Put(signed(&store.Lock{Key: "k"}, 0, "a/1")))
		if !errors.Is(err, context.Canceled) || len(d.calls) != 1 {
			t.Errorf("Commit = %v after %d calls, want context.Canceled after 1", err, len(d.calls))
		}
	})
}

func TestErrorsTellNoSecret(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := &dynamo{script: []answer{{status: 200, body: `{"Item":{"secret-of-the-answer":`}}}
		r := &store.Runner{ID: "x", Config: store.Config{Sealed: "secret-of-the-item"}}
		s := over(d)
		_, get := s.Get(t.Context(), r.Ref())
		for what, err := range map[string]error{"Get": get, "Commit": s.Commit(t.Context(), store.Put(r), store.Put(&store.Lock{Key: "k"}))} {
			if err == nil {
				t.Errorf("%s = nil, want an error", what)
				continue
			}
			for _, secret := range []string{"secret-of", "wJalrXUtnFEMI"} {
				if strings.Contains(err.Error(), secret) {
					t.Errorf("%s: %v; it tells %s", what, err, secret)
				}
			}
		}
	})
}
