package dynamostore_test

import (
	"crypto/rand"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb/types"

	"github.com/alphagov/github-actions-runner-orchestration/internal/aws/awshttp"
	"github.com/alphagov/github-actions-runner-orchestration/internal/test/awstest"
	"github.com/alphagov/github-actions-runner-orchestration/store"
	"github.com/alphagov/github-actions-runner-orchestration/store/dynamostore"
	"github.com/alphagov/github-actions-runner-orchestration/store/dynamostore/dynamostoretest"
	"github.com/alphagov/github-actions-runner-orchestration/store/storetest"
)

// The stand-ins: DynamoDB Local is Amazon's own engine, and what is true of it is
// taken to be true of DynamoDB. ministack is somebody else's reading of the same
// documentation. moto is not used here: it loses updates when several call at once.
// None of them lets an index lag, throttles, or lets transactions meet as DynamoDB
// does; the captured answers and lost answers of the other tests stand for that.
var standins = []struct {
	name  string
	start func(testing.TB) *awstest.Server
}{
	{"DynamoDBLocal", awstest.DynamoDB},
	{"Ministack", awstest.Ministack},
}

// config returns the configuration of a caller of s that has the HTTP client of
// production.
func config(t testing.TB, s *awstest.Server) aws.Config {
	t.Helper()
	cfg := awstest.Config(t, s, "eu-west-2", "123456789012")
	client := awshttp.Client(30 * time.Second)
	t.Cleanup(client.CloseIdleConnections)
	cfg.HTTPClient = client
	return cfg
}

// newTable makes a table that no other test has, and returns its name.
func newTable(t testing.TB, cfg aws.Config) string {
	t.Helper()
	table := "garo-" + strings.ToLower(rand.Text())
	if err := dynamostoretest.Create(t.Context(), cfg, table); err != nil {
		t.Fatal(err)
	}
	return table
}

func TestContract(t *testing.T) {
	for _, s := range standins {
		t.Run(s.name, func(t *testing.T) {
			server := s.start(t)
			storetest.Run(t, func(t *testing.T) store.Store {
				cfg := config(t, server)
				return dynamostore.New(cfg, newTable(t, cfg), nil)
			})
		})
	}
}

// operation returns the name of the call that r is.
func operation(r *http.Request) string {
	_, name, _ := strings.Cut(r.Header.Get("X-Amz-Target"), ".")
	return name
}

func TestTableMatchesTheSchema(t *testing.T) {
	for _, s := range standins {
		t.Run(s.name, func(t *testing.T) {
			cfg := config(t, s.start(t))
			table := newTable(t, cfg)
			client := dynamodb.NewFromConfig(cfg)
			out, err := client.DescribeTable(t.Context(), &dynamodb.DescribeTableInput{TableName: &table})
			if err != nil {
				t.Fatal(err)
			}
			got := dynamostore.Table{Key: *out.Table.KeySchema[0].AttributeName}
			byName := map[string]types.GlobalSecondaryIndexDescription{}
			for _, i := range out.Table.GlobalSecondaryIndexes {
				byName[*i.IndexName] = i
			}
			for _, want := range dynamostore.Schema().Indexes {
				i := byName[want.Name]
				if len(i.KeySchema) != 2 {
					t.Fatalf("index %s has %d keys, want 2", want.Name, len(i.KeySchema))
				}
				got.Indexes = append(got.Indexes, dynamostore.Index{
					Name: *i.IndexName, Hash: *i.KeySchema[0].AttributeName, Range: *i.KeySchema[1].AttributeName,
					Include: i.Projection.NonKeyAttributes,
				})
			}
			ttl, err := client.DescribeTimeToLive(t.Context(), &dynamodb.DescribeTimeToLiveInput{TableName: &table})
			if err != nil {
				t.Fatal(err)
			}
			got.TTL = aws.ToString(ttl.TimeToLiveDescription.AttributeName)
			if g, w := fmt.Sprintf("%+v", got), fmt.Sprintf("%+v", dynamostore.Schema()); g != w {
				t.Errorf("table = %s\nwant %s", g, w)
			}
		})
	}
}

func TestMissingTableSaysWhatToDo(t *testing.T) {
	for _, s := range standins {
		t.Run(s.name, func(t *testing.T) {
			st := dynamostore.New(config(t, s.start(t)), "nowhere", nil)
			_, get := st.Get(t.Context(), store.Ref{Kind: store.KindLock, ID: "k"})
			for what, err := range map[string]error{
				"Get":    get,
				"Commit": st.Commit(t.Context(), store.Put(&store.Lock{Key: "k"})),
			} {
				if err == nil || errors.Is(err, store.ErrConflict) || !strings.Contains(err.Error(), "table nowhere in eu-west-2") ||
					!strings.Contains(err.Error(), "GARO_TABLE") {
					t.Errorf("%s = %v, want an error that names the table and GARO_TABLE", what, err)
				}
			}
		})
	}
}
