// Package dynamostore keeps the store in one DynamoDB table. It is a store.Store
// for any number of processes, in any number of Lambda functions.
//
// An item of the store is an item of the table, under the key that Ref.String
// returns. Its attributes are the members of the JSON object that every backend
// keeps, so that the console shows what the documentation calls things: text,
// numbers, ISO 8601 times, words for states. A few attributes more put it into the
// indexes, which find items for Due and List and never decide anything. Schema
// names them all.
//
// # Commits
//
// One put is a PutItem under the condition that the item still has the version
// that was read; several changes are one TransactWriteItems. A check alone is a
// consistent GetItem whose version is compared: it says as much as a ConditionCheck
// in a transaction of one (at an instant within the call the item was as it was
// read) for a quarter of the price, and hinders no writer.
//
// A failed condition shows the item as it stands, with the failure itself. Two
// transactions that meet on an item are no conflict of versions, though DynamoDB
// lets one of them fail: that one is tried again, as one that was throttled is, until
// it wins or its condition has failed.
//
// # Retries
//
// The SDK's own retries are off. They would repeat a put that won and lost only its
// answer, and report the failure of a condition that is this very put's own work;
// here the failure is looked at first, and a put that carries the commit's own
// Meta.Writer is a success. Nor does the SDK repeat a cancelled transaction, or take
// its jitter from a source of ours. A put without a Writer could not be told from
// another's, so it is not repeated when its outcome is unknown. A transaction has a
// request token, by which DynamoDB itself recognises it for ten minutes.
package dynamostore

import (
	"context"
	"crypto/rand"
	"io"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb"

	"github.com/alphagov/github-actions-runner-orchestration/store"
)

// Store is a store.Store. It is safe for concurrent use, and has nothing to close.
type Store struct {
	table  string
	region string // for people, in errors
	random io.Reader
	api    calls
}

var _ store.Store = (*Store)(nil)

// calls are what Store calls of DynamoDB. They are method values, and no
// interface: through an interface a linker that meets reflection anywhere in the
// program must keep every method of the client.
type calls struct {
	get      func(context.Context, *dynamodb.GetItemInput, ...func(*dynamodb.Options)) (*dynamodb.GetItemOutput, error)
	getMany  func(context.Context, *dynamodb.BatchGetItemInput, ...func(*dynamodb.Options)) (*dynamodb.BatchGetItemOutput, error)
	put      func(context.Context, *dynamodb.PutItemInput, ...func(*dynamodb.Options)) (*dynamodb.PutItemOutput, error)
	transact func(context.Context, *dynamodb.TransactWriteItemsInput, ...func(*dynamodb.Options)) (*dynamodb.TransactWriteItemsOutput, error)
	query    func(context.Context, *dynamodb.QueryInput, ...func(*dynamodb.Options)) (*dynamodb.QueryOutput, error)
}

// New returns the store in a table that Schema describes. It calls nobody: a table
// that is missing shows in the first call. cfg's HTTPClient should be that of
// package awshttp, with a timeout that leaves time for a second try. random is for
// request tokens and for the jitter of retries, must be safe for concurrent use,
// and may be nil: crypto/rand.Reader.
func New(cfg aws.Config, table string, random io.Reader) *Store {
	if random == nil {
		random = rand.Reader
	}
	client := dynamodb.NewFromConfig(cfg, func(o *dynamodb.Options) { o.Retryer = aws.NopRetryer{} })
	return &Store{
		table: table, region: cfg.Region, random: random,
		api: calls{client.GetItem, client.BatchGetItem, client.PutItem, client.TransactWriteItems, client.Query},
	}
}
