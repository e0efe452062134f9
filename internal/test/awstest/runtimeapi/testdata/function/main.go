// Command function is a Lambda function that does what it is told.
package main

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"os"
	"strings"
	"time"

	"github.com/aws/aws-lambda-go/lambda"
	"github.com/aws/aws-lambda-go/lambdacontext"
)

type order struct {
	Do string
}

type reply struct {
	Said       string
	RequestID  string
	ARN        string
	Trace      string
	Remaining  time.Duration
	Background int // ticks of a goroutine that outlives its handler
	PID        int
}

func main() {
	switch os.Getenv("FUNCTION_INIT") {
	case "exit":
		os.Exit(3)
	case "report":
		url := "http://" + os.Getenv("AWS_LAMBDA_RUNTIME_API") + "/2018-06-01/runtime/init/error"
		_, err := http.Post(url, "application/json", strings.NewReader(`{"errorType":"Function.NoTable","errorMessage":"GARO_TABLE is not set"}`))
		fmt.Fprintln(os.Stderr, "reported:", err)
		os.Exit(1)
	case "hang":
		time.Sleep(time.Hour)
	}
	ticks := make(chan int, 1)
	ticks <- 0
	lambda.Start(func(ctx context.Context, o order) (reply, error) {
		fmt.Println("order:", o.Do)
		switch o.Do {
		case "fail":
			return reply{}, errors.New("no such order")
		case "panic":
			panic("told to")
		case "exit":
			os.Exit(4)
		case "sleep":
			time.Sleep(time.Hour)
		case "burn":
			for end := time.Now().Add(300 * time.Millisecond); time.Now().Before(end); {
			}
		case "background":
			go func() {
				for {
					time.Sleep(time.Millisecond)
					ticks <- <-ticks + 1
				}
			}()
		case "large":
			return reply{Said: strings.Repeat("x", 7<<20)}, nil
		}
		lc, _ := lambdacontext.FromContext(ctx)
		deadline, _ := ctx.Deadline()
		n := <-ticks
		ticks <- n
		return reply{
			Said: o.Do, RequestID: lc.AwsRequestID, ARN: lc.InvokedFunctionArn, Trace: os.Getenv("_X_AMZN_TRACE_ID"),
			Remaining: time.Until(deadline), Background: n, PID: os.Getpid(),
		}, nil
	})
}
