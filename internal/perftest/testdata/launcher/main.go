// Command launcher is a Lambda function that opens the clients which the worker and
// the reaper need, as any program would: it uses each that can be used without an
// effect once, at the same time, before it asks for the first event, which it
// answers by one read of the table.
package main

import (
	"context"
	"fmt"
	"os"
	"sync"

	"github.com/aws/aws-lambda-go/lambda"
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
	cfg, err := config.LoadDefaultConfig(ctx)
	if err != nil {
		fail(err)
	}
	table, queue, parameters, roles := dynamodb.NewFromConfig(cfg), sqs.NewFromConfig(cfg), ssm.NewFromConfig(cfg), sts.NewFromConfig(cfg)
	machines := ec2.NewFromConfig(cfg)
	launch := machines.RunInstances // or the linker leaves it out
	name, url := os.Getenv("GARO_TABLE"), os.Getenv("GARO_QUEUE_URL")
	key := map[string]types.AttributeValue{"item": &types.AttributeValueMemberS{Value: "request#none"}}
	read := func(ctx context.Context) error {
		_, err := table.GetItem(ctx, &dynamodb.GetItemInput{TableName: &name, Key: key})
		return err
	}
	var wg sync.WaitGroup
	wg.Go(func() {
		if err := read(ctx); err != nil {
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
	wg.Go(func() {
		if _, err := roles.AssumeRole(ctx, &sts.AssumeRoleInput{RoleArn: new("arn:aws:iam::123456789012:role/garo"), RoleSessionName: new("garo")}); err != nil {
			fail(err)
		}
	})
	wg.Wait()
	lambda.Start(func(ctx context.Context) (string, error) {
		if os.Getenv("LAUNCH") != "" {
			if _, err := launch(ctx, &ec2.RunInstancesInput{}); err != nil {
				return "", err
			}
		}
		return "done", read(ctx)
	})
}

func fail(err error) {
	fmt.Fprintln(os.Stderr, "launcher:", err)
	os.Exit(1)
}
