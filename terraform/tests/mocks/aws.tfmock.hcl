# What the mocked AWS provider answers, for the tests of all modules here: it makes
# up a random string for whatever the provider would compute, which is no ARN.
mock_data "aws_caller_identity" {
  defaults = { account_id = "111111111111" }
}

mock_data "aws_partition" {
  defaults = { partition = "aws", dns_suffix = "amazonaws.com" }
}

mock_data "aws_region" {
  defaults = { region = "eu-west-2" }
}

mock_data "aws_vpc" {
  defaults = { id = "vpc-0123456789abcdef0" }
}

mock_data "aws_subnets" {
  defaults = { ids = ["subnet-0000000000000000a", "subnet-0000000000000000b"] }
}

mock_resource "aws_apigatewayv2_api" {
  defaults = {
    id            = "api1234567"
    api_endpoint  = "https://api1234567.execute-api.eu-west-2.amazonaws.com"
    execution_arn = "arn:aws:execute-api:eu-west-2:111111111111:api1234567"
  }
}

mock_resource "aws_apigatewayv2_domain_name" {
  defaults = {
    domain_name_configuration = {
      target_domain_name = "d-1234567890.execute-api.eu-west-2.amazonaws.com"
      hosted_zone_id     = "ZJ5UAJN8Y3Z2Q"
    }
  }
}

mock_resource "aws_cloudwatch_log_group" {
  defaults = { arn = "arn:aws:logs:eu-west-2:111111111111:log-group:mock" }
}

mock_resource "aws_cloudwatch_metric_alarm" {
  defaults = { arn = "arn:aws:cloudwatch:eu-west-2:111111111111:alarm:mock" }
}

mock_resource "aws_dynamodb_table" {
  defaults = { arn = "arn:aws:dynamodb:eu-west-2:111111111111:table/mock" }
}

mock_resource "aws_iam_role" {
  defaults = { arn = "arn:aws:iam::111111111111:role/mock" }
}

mock_resource "aws_lambda_function" {
  defaults = {
    arn        = "arn:aws:lambda:eu-west-2:111111111111:function:mock"
    invoke_arn = "arn:aws:apigateway:eu-west-2:lambda:path/2015-03-31/functions/arn:aws:lambda:eu-west-2:111111111111:function:mock/invocations"
    # That of package.sha256 in the tests, in base64.
    code_sha256 = "mTCnqtILkQsQ3Wi6RVgIO3UnNRojy2DY2aCCdhpBahs="
  }
}

mock_resource "aws_security_group" {
  defaults = { id = "sg-0000000000000000f" }
}

mock_resource "aws_sns_topic" {
  defaults = { arn = "arn:aws:sns:eu-west-2:111111111111:mock" }
}

mock_resource "aws_sqs_queue" {
  defaults = {
    arn = "arn:aws:sqs:eu-west-2:111111111111:mock"
    id  = "https://sqs.eu-west-2.amazonaws.com/111111111111/mock"
    url = "https://sqs.eu-west-2.amazonaws.com/111111111111/mock"
  }
}

# Of a write-only value, which is in no state.
mock_resource "aws_ssm_parameter" {
  defaults = { value = "" }
}
