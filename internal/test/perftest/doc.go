// Package perftest measures what GARO costs on AWS: the calls that its Lambda
// functions make, how many of them wait for one another, and what the programs
// take to start.
//
// It runs the built programs as Lambda does, and counts at the wire: every HTTP
// request that leaves a function. docs/performance.md holds the figures, and a test
// holds the document to them. What a clock or a processor measures is in
// benchmarks, since no test should depend on what else a machine does.
//
// It has tests alone. They need Linux, and those that count need DynamoDB Local.
package perftest
