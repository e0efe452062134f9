// Command constant is a Lambda function that answers the same whatever it is asked:
// what a Go program costs there that does nothing.
package main

import (
	"context"

	"github.com/aws/aws-lambda-go/lambda"
)

func main() {
	lambda.Start(func(context.Context) (string, error) { return "constant", nil })
}
