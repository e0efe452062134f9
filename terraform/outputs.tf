output "url" {
  description = "Base address of the API, for GARO_URL and the Action's input `url`. It is the audience of callers' ID tokens too."
  value       = local.url
}

output "webhook_url" {
  description = "Where GitHub delivers what becomes of workflow jobs: the address of an App's webhook, or of a repository's or an organisation's."
  value       = "${local.url}/github/webhook"
}

output "control_plane" {
  description = "What modules/account has to know of this control plane: pass it on whole."
  value = {
    name            = var.name
    worker_role_arn = aws_iam_role.function["worker"].arn
    reaper_role_arn = aws_iam_role.function["reaper"].arn
  }
}

output "external_ids" {
  description = "The external id of each account, by the account's id. modules/account puts it into the trust policy of the account's role."
  value       = { for id, p in random_password.external_id : id => p.result }
  sensitive   = true
}

output "table" {
  description = "Name of the table with all records."
  value       = aws_dynamodb_table.this.name
}

output "queue_url" {
  description = "Address of the queue between API and worker."
  value       = aws_sqs_queue.this.url
}

output "dead_letter_queue_url" {
  description = "Address of the queue of messages that failed five times."
  value       = aws_sqs_queue.dead.url
}

output "function_names" {
  description = "Names of the Lambda functions, by part."
  value       = { for part, f in aws_lambda_function.this : part => f.function_name }
}

output "log_group" {
  description = "Name of the log group of all three functions."
  value       = aws_cloudwatch_log_group.functions.name
}

output "alarm_topic_arn" {
  description = "ARN of the topic that all alarms go to."
  value       = aws_sns_topic.alarms.arn
}

output "parameters" {
  description = "Path under which the control plane's parameters are."
  value       = local.parameters
}

output "domain_target" {
  description = "What a DNS record for `domain` has to point at, if it is not made here. Null without a domain."
  value       = try(aws_apigatewayv2_domain_name.this[0].domain_name_configuration[0].target_domain_name, null)
}

output "setup_scripts" {
  description = "Path and SHA-256 of each of setup_scripts, for `setup` of accounts."
  value       = { for name, script in var.setup_scripts : name => { path = "${local.parameters}/setup/${name}", sha256 = sha256(script) } }
}
