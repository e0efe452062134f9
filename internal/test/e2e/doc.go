// Package e2e proves the control plane as it is deployed: the built programs of the
// three Lambda functions, each a process under a stand-in of Lambda's Runtime API,
// with the environment that a deployment gives them. EC2, STS and SSM are moto
// behind a proxy that knows their rules, with the control plane in one account and
// machines in another; the table is DynamoDB Local's and the queue is ElasticMQ's.
//
// The tests are what AWS has around the functions: the HTTP API in front of one, the
// event source of another, the schedule of the third. A machine is the real agent,
// started with the user data that EC2 kept, with a runner program that pretends.
//
// It has tests alone. All numbers are production's; nothing waits for them: what
// has to be late or old is made so in the table or in EC2's answers, and says so.
package e2e
