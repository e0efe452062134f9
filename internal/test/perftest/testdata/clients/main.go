// Command clients is a Lambda function that makes the calls which the API makes, as
// any program with the SDK would, and does nothing else: before the first event what
// the API fetches, and at each event, which it only decodes, a PutItem and a
// SendMessage, as for a POST /start.
package main

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"os"
	"sync"

	"github.com/aws/aws-lambda-go/events"
	"github.com/aws/aws-lambda-go/lambda"
	awshttp "github.com/aws/aws-sdk-go-v2/aws/transport/http"
	"github.com/aws/aws-sdk-go-v2/config"
	"github.com/aws/aws-sdk-go-v2/feature/dynamodb/attributevalue"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb/types"
	"github.com/aws/aws-sdk-go-v2/service/sqs"
	"github.com/aws/aws-sdk-go-v2/service/ssm"
)

func main() {
	ctx := context.Background()
	client := awshttp.NewBuildableClient()
	cfg, err := config.LoadDefaultConfig(ctx, config.WithHTTPClient(client))
	must(err)
	table, queue, parameters := dynamodb.NewFromConfig(cfg), sqs.NewFromConfig(cfg), ssm.NewFromConfig(cfg)
	name, url := os.Getenv("GARO_TABLE"), os.Getenv("GARO_QUEUE_URL")
	b, err := os.ReadFile(os.Getenv("ITEM"))
	must(err)
	item, err := attributevalue.UnmarshalMapJSON(b)
	must(err)
	get := func(url string) {
		req, err := http.NewRequest(http.MethodGet, url, nil)
		must(err)
		resp, err := client.Do(req)
		must(err)
		_, err = io.Copy(io.Discard, resp.Body) // else the connection is not used again
		must(err)
		must(resp.Body.Close())
	}
	parameter := func(name string) {
		_, err := parameters.GetParameter(ctx, &ssm.GetParameterInput{Name: &name, WithDecryption: new(true)})
		must(err)
	}
	var wg sync.WaitGroup
	wg.Go(func() {
		key := map[string]types.AttributeValue{"item": item["item"]}
		_, err := table.GetItem(ctx, &dynamodb.GetItemInput{TableName: &name, Key: key})
		must(err)
	})
	wg.Go(func() { get(os.Getenv("GARO_OIDC_ISSUERS") + "/.well-known/jwks") })
	wg.Go(func() { get(os.Getenv("AWS_ENDPOINT_URL_SQS") + "/") })
	wg.Go(func() {
		parameter("/garo/keys")
		parameter("/garo/operators")
	})
	wg.Go(func() {
		list, err := parameters.GetParametersByPath(ctx, &ssm.GetParametersByPathInput{Path: new("/garo/accounts")})
		must(err)
		for _, p := range list.Parameters {
			parameter(*p.Name)
		}
	})
	wg.Wait()
	lambda.Start(func(ctx context.Context, _ events.APIGatewayV2HTTPRequest) (string, error) {
		if _, err := table.PutItem(ctx, &dynamodb.PutItemInput{TableName: &name, Item: item}); err != nil {
			return "", err
		}
		_, err := queue.SendMessage(ctx, &sqs.SendMessageInput{QueueUrl: &url, MessageBody: new("message")})
		return "done", err
	})
}

func must(err error) {
	if err != nil {
		fmt.Fprintln(os.Stderr, "clients:", err)
		os.Exit(1)
	}
}
