// Command launcher is a Lambda function that makes the calls which the worker makes,
// as any program with the SDK would, and does nothing else: before the first event
// what the worker fetches, and at each event, which it only decodes, one read of the
// table. With SWEEP it makes those of the reaper, which sweeps one account and region
// at each event.
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
	"github.com/aws/aws-sdk-go-v2/service/dynamodb"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb/types"
	"github.com/aws/aws-sdk-go-v2/service/ec2"
	"github.com/aws/aws-sdk-go-v2/service/sqs"
	"github.com/aws/aws-sdk-go-v2/service/ssm"
	"github.com/aws/aws-sdk-go-v2/service/sts"
)

func main() {
	ctx := context.Background()
	client := awshttp.NewBuildableClient()
	cfg, err := config.LoadDefaultConfig(ctx, config.WithHTTPClient(client))
	must(err)
	table, queue, parameters, roles := dynamodb.NewFromConfig(cfg), sqs.NewFromConfig(cfg), ssm.NewFromConfig(cfg), sts.NewFromConfig(cfg)
	machines := ec2.NewFromConfig(cfg)
	launch, send := machines.RunInstances, queue.SendMessage // or the linker leaves them out
	name, sweeps := os.Getenv("GARO_TABLE"), os.Getenv("SWEEP") != ""
	key := map[string]types.AttributeValue{"item": &types.AttributeValueMemberS{Value: "request#none"}}
	read := func() {
		_, err := table.GetItem(ctx, &dynamodb.GetItemInput{TableName: &name, Key: key})
		must(err)
	}
	parameter := func(name string) {
		_, err := parameters.GetParameter(ctx, &ssm.GetParameterInput{Name: &name, WithDecryption: new(true)})
		must(err)
	}
	assume := func() {
		_, err := roles.AssumeRole(ctx, &sts.AssumeRoleInput{RoleArn: new("arn:aws:iam::123456789012:role/garo"), RoleSessionName: new("garo")})
		must(err)
	}
	query := func(index, attribute string) {
		_, err := table.Query(ctx, &dynamodb.QueryInput{
			TableName: &name, IndexName: &index, KeyConditionExpression: new("#a = :v"), ExpressionAttributeNames: map[string]string{"#a": attribute},
			ExpressionAttributeValues: map[string]types.AttributeValue{":v": &types.AttributeValueMemberS{Value: attribute}},
		})
		must(err)
	}
	put := func() {
		_, err := table.PutItem(ctx, &dynamodb.PutItemInput{TableName: &name, Item: key})
		must(err)
	}
	var wg sync.WaitGroup
	wg.Go(read)
	wg.Go(func() {
		req, err := http.NewRequest(http.MethodGet, os.Getenv("AWS_ENDPOINT_URL_SQS")+"/", nil)
		must(err)
		resp, err := client.Do(req)
		must(err)
		_, err = io.Copy(io.Discard, resp.Body) // else the connection is not used again
		must(err)
		must(resp.Body.Close())
	})
	if !sweeps {
		wg.Go(func() { parameter("/garo/keys") })
	}
	wg.Go(func() {
		list, err := parameters.GetParametersByPath(ctx, &ssm.GetParametersByPathInput{Path: new("/garo/accounts")})
		must(err)
		for _, p := range list.Parameters {
			parameter(*p.Name)
		}
		if !sweeps {
			assume()
		}
	})
	wg.Wait()
	once := sync.OnceFunc(assume)
	lambda.Start(func(ctx context.Context, _ events.SQSEvent) (string, error) {
		if os.Getenv("LAUNCH") != "" {
			_, err := launch(ctx, &ec2.RunInstancesInput{})
			must(err)
			_, err = send(ctx, &sqs.SendMessageInput{})
			must(err)
		}
		if !sweeps {
			read()
			return "done", nil
		}
		query("due", "due")
		read()
		put()
		once()
		_, err := machines.DescribeInstances(ctx, &ec2.DescribeInstancesInput{})
		must(err)
		query("list", "list")
		put()
		return "done", nil
	})
}

func must(err error) {
	if err != nil {
		fmt.Fprintln(os.Stderr, "launcher:", err)
		os.Exit(1)
	}
}
