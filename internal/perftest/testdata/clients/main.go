// Command clients is a Lambda function that opens the clients which the API needs,
// as any program would: it uses each once, at the same time, before it asks for the
// first event, which it answers as the API answers a POST /start, by a PutItem and a
// SendMessage.
package main

import (
	"context"
	"fmt"
	"net/http"
	"os"
	"sync"

	"github.com/aws/aws-lambda-go/lambda"
	"github.com/aws/aws-sdk-go-v2/config"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb/types"
	"github.com/aws/aws-sdk-go-v2/service/sqs"
	"github.com/aws/aws-sdk-go-v2/service/ssm"
)

func main() {
	ctx := context.Background()
	cfg, err := config.LoadDefaultConfig(ctx)
	if err != nil {
		fail(err)
	}
	table, queue, parameters := dynamodb.NewFromConfig(cfg), sqs.NewFromConfig(cfg), ssm.NewFromConfig(cfg)
	name, url := os.Getenv("GARO_TABLE"), os.Getenv("GARO_QUEUE_URL")
	key := map[string]types.AttributeValue{"item": &types.AttributeValueMemberS{Value: "request#none"}}
	var wg sync.WaitGroup
	wg.Go(func() {
		if _, err := table.GetItem(ctx, &dynamodb.GetItemInput{TableName: &name, Key: key}); err != nil {
			fail(err)
		}
	})
	wg.Go(func() {
		if _, err := parameters.GetParameter(ctx, &ssm.GetParameterInput{Name: new("/garo/keys")}); err != nil {
			fail(err)
		}
	})
	wg.Go(func() {
		if _, err := queue.SendMessage(ctx, &sqs.SendMessageInput{QueueUrl: &url, MessageBody: new("first")}); err != nil {
			fail(err)
		}
	})
	wg.Go(func() { // whoever believes ID tokens has to have the issuer's keys
		resp, err := http.Get(os.Getenv("GARO_OIDC_ISSUERS") + "/.well-known/jwks")
		if err != nil {
			fail(err)
		}
		_ = resp.Body.Close()
	})
	wg.Wait()
	lambda.Start(func(ctx context.Context) (string, error) {
		if _, err := table.PutItem(ctx, &dynamodb.PutItemInput{TableName: &name, Item: key}); err != nil {
			return "", err
		}
		_, err := queue.SendMessage(ctx, &sqs.SendMessageInput{QueueUrl: &url, MessageBody: new("message")})
		return "done", err
	})
}

func fail(err error) {
	fmt.Fprintln(os.Stderr, "clients:", err)
	os.Exit(1)
}
