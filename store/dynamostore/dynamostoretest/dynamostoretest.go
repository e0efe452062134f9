// Package dynamostoretest makes the table of a dynamostore, for tests against a
// stand-in for DynamoDB. In AWS, Terraform makes it.
package dynamostoretest

import (
	"context"
	"fmt"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb/types"

	"github.com/alphagov/github-actions-runner-orchestration/store/dynamostore"
)

// activeLimit is how long a new table may take: a stand-in has it at once, AWS in
// some seconds.
const activeLimit = time.Minute

// Create makes a table of that name as dynamostore.Schema describes it, and returns
// when it can be used.
func Create(ctx context.Context, cfg aws.Config, table string) error {
	client := dynamodb.NewFromConfig(cfg)
	in := Input(table)
	if _, err := client.CreateTable(ctx, in); err != nil {
		return fmt.Errorf("create table %s: %w", table, err)
	}
	if err := dynamodb.NewTableExistsWaiter(client).Wait(ctx, &dynamodb.DescribeTableInput{TableName: &table}, activeLimit); err != nil {
		return fmt.Errorf("create table %s: %w", table, err)
	}
	if _, err := client.UpdateTimeToLive(ctx, &dynamodb.UpdateTimeToLiveInput{
		TableName:               &table,
		TimeToLiveSpecification: &types.TimeToLiveSpecification{AttributeName: new(dynamostore.Schema().TTL), Enabled: new(true)},
	}); err != nil {
		return fmt.Errorf("set the time to live of table %s: %w", table, err)
	}
	return nil
}

// Input returns the call that creates the table, on demand.
func Input(table string) *dynamodb.CreateTableInput {
	schema := dynamostore.Schema()
	in := &dynamodb.CreateTableInput{
		TableName:   &table,
		BillingMode: types.BillingModePayPerRequest,
		KeySchema:   []types.KeySchemaElement{{AttributeName: &schema.Key, KeyType: types.KeyTypeHash}},
	}
	names := map[string]bool{}
	define := func(name string) {
		if !names[name] {
			names[name] = true
			in.AttributeDefinitions = append(in.AttributeDefinitions, types.AttributeDefinition{AttributeName: &name, AttributeType: types.ScalarAttributeTypeS})
		}
	}
	define(schema.Key)
	for _, index := range schema.Indexes {
		define(index.Hash)
		define(index.Range)
		projection := &types.Projection{ProjectionType: types.ProjectionTypeKeysOnly}
		if len(index.Include) > 0 {
			projection = &types.Projection{ProjectionType: types.ProjectionTypeInclude, NonKeyAttributes: index.Include}
		}
		in.GlobalSecondaryIndexes = append(in.GlobalSecondaryIndexes, types.GlobalSecondaryIndex{
			IndexName: &index.Name,
			KeySchema: []types.KeySchemaElement{
				{AttributeName: &index.Hash, KeyType: types.KeyTypeHash},
				{AttributeName: &index.Range, KeyType: types.KeyTypeRange},
			},
			Projection: projection,
		})
	}
	return in
}
