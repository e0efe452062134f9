# Names, numbers and wiring of the control plane, without AWS.
mock_provider "aws" {
  source = "./tests/mocks"
}

mock_provider "random" {
  mock_resource "random_password" {
    defaults = { result = "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa" }
  }
}

variables {
  package = {
    s3_bucket = "releases"
    s3_prefix = "garo/v1/"
    sha256    = { for part in ["api", "worker", "reaper"] : part => "9930a7aad20b910b10dd68ba4558083b7527351a23cb60d8d9a082761a416a1b" }
  }
  accounts = {
    "222222222222" = {
      owners         = [{ id = "1", name = "acme" }]
      regions        = { eu-west-2 = { subnets = ["subnet-0a"], images = ["ami-0123456789abcdef0"] } }
      instance_types = ["m7i.large"]
    }
  }
}

run "names" {
  assert {
    condition     = { for part, f in aws_lambda_function.this : part => f.function_name } == { api = "garo-api", worker = "garo-worker", reaper = "garo-reaper" }
    error_message = "The functions are not named after the control plane."
  }
  assert {
    condition     = aws_dynamodb_table.this.name == "garo" && aws_sqs_queue.this.name == "garo-requests" && aws_sqs_queue.dead.name == "garo-requests-dead"
    error_message = "Table or queues are not named after the control plane."
  }
  assert {
    condition     = aws_ssm_parameter.account["222222222222"].name == "/garo/accounts/222222222222" && aws_ssm_parameter.operators.name == "/garo/operators" && aws_ssm_parameter.keys[0].name == "/garo/keys"
    error_message = "The parameters are not where the programs look for them."
  }
  assert {
    condition     = output.control_plane.name == "garo" && output.url == "https://api1234567.execute-api.eu-west-2.amazonaws.com"
    error_message = "The outputs name another control plane."
  }
}

run "numbers" {
  assert {
    condition     = { for part, f in aws_lambda_function.this : part => f.timeout } == { api = 10, worker = 30, reaper = 50 }
    error_message = "A function's timeout is not the agreed one."
  }
  assert {
    condition     = aws_sqs_queue.this.visibility_timeout_seconds == 47 && aws_sqs_queue.this.message_retention_seconds == 86400 && aws_sqs_queue.dead.message_retention_seconds == 1209600
    error_message = "The queues' times are not the agreed ones."
  }
  assert {
    condition     = jsondecode(aws_sqs_queue.this.redrive_policy).maxReceiveCount == 5
    error_message = "A message is not dead after five receives."
  }
  assert {
    condition = (
      aws_lambda_event_source_mapping.worker.batch_size == 25 &&
      aws_lambda_event_source_mapping.worker.maximum_batching_window_in_seconds == 1 &&
      tolist(aws_lambda_event_source_mapping.worker.function_response_types) == tolist(["ReportBatchItemFailures"]) &&
      aws_lambda_event_source_mapping.worker.scaling_config[0].maximum_concurrency == 10
    )
    error_message = "The worker does not get its messages as agreed."
  }
  assert {
    condition     = aws_scheduler_schedule.reaper["0"].schedule_expression == "rate(1 minute)" && aws_scheduler_schedule.reaper["0"].target[0].retry_policy[0].maximum_retry_attempts == 2 && aws_scheduler_schedule.reaper["0"].target[0].retry_policy[0].maximum_event_age_in_seconds == 60
    error_message = "The reaper does not run every minute with few and young retries."
  }
  assert {
    condition     = aws_lambda_function_recursion_config.worker.function_name == "garo-worker" && aws_lambda_function_recursion_config.worker.recursive_loop == "Allow"
    error_message = "Lambda takes a worker that sends to its own queue for a loop."
  }
  assert {
    condition     = aws_lambda_function_event_invoke_config.reaper.maximum_retry_attempts == 0
    error_message = "Lambda repeats a failed run of the reaper."
  }
}

run "functions" {
  assert {
    condition     = alltrue([for f in aws_lambda_function.this : f.runtime == "provided.al2023" && f.architectures[0] == "arm64" && f.handler == "bootstrap"])
    error_message = "A function is not a bootstrap on arm64."
  }
  assert {
    condition     = alltrue([for f in aws_lambda_function.this : f.logging_config[0].log_format == "JSON" && f.logging_config[0].log_group == "/aws/lambda/garo" && f.logging_config[0].application_log_level == "INFO"])
    error_message = "A function does not log JSON into the common log group."
  }
  assert {
    condition     = alltrue([for part, f in aws_lambda_function.this : f.s3_key == "garo/v1/garo-${part}-linux-arm64.zip" && f.source_code_hash == "mTCnqtILkQsQ3Wi6RVgIO3UnNRojy2DY2aCCdhpBahs="])
    error_message = "A function is not made of the object in the bucket, by its digest."
  }
  assert {
    condition     = alltrue([for f in aws_lambda_function.this : f.reserved_concurrent_executions == -1 && f.memory_size >= 256 && f.tracing_config[0].mode == "PassThrough" && length(f.vpc_config) == 0])
    error_message = "A function reserves, traces or is in a VPC unasked."
  }
  assert {
    condition     = !anytrue([for p in aws_iam_role_policy.function : strcontains(p.policy, "NetworkInterface")])
    error_message = "A function that is in no VPC may make network interfaces."
  }
  assert {
    condition     = aws_lambda_event_source_mapping.worker.event_source_arn == aws_sqs_queue.this.arn && aws_cloudwatch_log_group.functions.retention_in_days == 30
    error_message = "The worker listens to another queue, or logs are kept for ever."
  }
}

run "table" {
  assert {
    condition     = aws_dynamodb_table.this.billing_mode == "PAY_PER_REQUEST" && aws_dynamodb_table.this.point_in_time_recovery[0].enabled && aws_dynamodb_table.this.deletion_protection_enabled && aws_dynamodb_table.this.ttl[0].attribute_name == "ttl"
    error_message = "The table is not on demand, recoverable, protected and cleaned."
  }
}

run "restored_table" {
  variables {
    table = "garo-restored"
  }
  assert {
    condition     = aws_dynamodb_table.this.name == "garo-restored" && alltrue([for f in aws_lambda_function.this : f.environment[0].variables.GARO_TABLE == "garo-restored"])
    error_message = "A table of another name is not used by all functions."
  }
  assert {
    condition     = aws_sqs_queue.this.name == "garo-requests" && strcontains(aws_cloudwatch_dashboard.this.dashboard_body, "\"TableName\",\"garo-restored\"")
    error_message = "Another table changes other names, or is not on the dashboard."
  }
}

run "metrics" {
  variables {
    reaper_shards = 3
  }
  assert {
    condition     = alltrue([for m in ["Accepted", "Ready", "Failed", "TimeToReady", "LaunchErrors", "Live", "Orphans", "GitHubLeft", "OldestWait", "Brake"] : strcontains(aws_cloudwatch_dashboard.this.dashboard_body, "\"GARO\",\"${m}\",\"ControlPlane\",\"garo\"")])
    error_message = "A metric of this control plane is not on the dashboard."
  }
  assert {
    condition     = strcontains(aws_cloudwatch_dashboard.this.dashboard_body, "live * 3")
    error_message = "The parts that three shards measure are not added up."
  }
  assert {
    condition     = alltrue([for f in aws_lambda_function.this : f.environment[0].variables.GARO_CONTROL_PLANE == "garo"])
    error_message = "A function does not know whose metrics it writes."
  }
}

run "http" {
  assert {
    condition     = toset([for r in aws_apigatewayv2_stage.this.route_settings : r.route_key]) == toset([for r in aws_apigatewayv2_route.this : r.route_key])
    error_message = "A route has no throttle of its own."
  }
  assert {
    condition     = alltrue([for r in aws_apigatewayv2_stage.this.route_settings : r.throttling_rate_limit > 0 && r.throttling_burst_limit > 0])
    error_message = "A route's throttle is closed."
  }
  assert {
    condition     = aws_apigatewayv2_integration.api.payload_format_version == "2.0" && aws_apigatewayv2_stage.this.name == "$default"
    error_message = "The stage or the payload is not what the API's program expects."
  }
  assert {
    condition     = aws_lambda_permission.api.source_arn == "arn:aws:execute-api:eu-west-2:111111111111:api1234567/*/*"
    error_message = "Another API may invoke the function."
  }
  assert {
    condition     = !strcontains(aws_apigatewayv2_stage.this.access_log_settings[0].format, "authorization")
    error_message = "The access log holds tokens."
  }
}

run "alarms" {
  assert {
    condition     = alltrue([for a in aws_cloudwatch_metric_alarm.this : a.alarm_actions == toset([aws_sns_topic.alarms.arn])])
    error_message = "An alarm tells nobody."
  }
  assert {
    condition     = alltrue([for name, f in aws_cloudwatch_log_metric_filter.alarm : f.metric_transformation[0].name == aws_cloudwatch_metric_alarm.this["alarm-${name}"].metric_name && f.metric_transformation[0].namespace == aws_cloudwatch_metric_alarm.this["alarm-${name}"].namespace])
    error_message = "A filter counts what no alarm looks at."
  }
  assert {
    condition     = aws_cloudwatch_metric_alarm.this["reaper-not-run"].treat_missing_data == "missing" && aws_cloudwatch_metric_alarm.this["reaper-not-run"].insufficient_data_actions == toset([aws_sns_topic.alarms.arn])
    error_message = "Nobody hears that the reaper stopped, or it is in alarm before its first run."
  }
  assert {
    condition     = alltrue([for name, a in aws_cloudwatch_metric_alarm.this : length(a.insufficient_data_actions) == 0 if name != "reaper-not-run"])
    error_message = "The topic hears of data that is rightly missing."
  }
  assert {
    condition     = alltrue([for name in ["alarm-reaper", "reaper-errors"] : aws_cloudwatch_metric_alarm.this[name].evaluation_periods == 5 && aws_cloudwatch_metric_alarm.this[name].datapoints_to_alarm == 3])
    error_message = "One failed run of the reaper is an alarm."
  }
  assert {
    condition     = length(aws_sns_topic_subscription.email) == 0
    error_message = "Somebody is subscribed unasked."
  }
}

run "shards_have_a_schedule_each" {
  command = plan
  variables {
    reaper_shards = 3
  }
  assert {
    condition     = length(aws_scheduler_schedule.reaper) == 3 && aws_scheduler_schedule.reaper["0"].name == "garo-reaper" && aws_scheduler_schedule.reaper["2"].name == "garo-reaper-2"
    error_message = "A shard has no schedule of its own."
  }
  assert {
    condition     = jsondecode(aws_scheduler_schedule.reaper["2"].target[0].input) == { shard = 2, of = 3 } && aws_lambda_function.this["reaper"].environment[0].variables.GARO_REAPER_SHARDS == "3"
    error_message = "A schedule does not say which shard it is for, or the reaper not how many there are."
  }
}

run "throttling_and_memory_are_merged" {
  variables {
    throttling           = { "POST /start" = { rate = 7, burst = 9 } }
    memory_mb            = { api = 512 }
    reserved_concurrency = { worker = 10 }
    alarm_emails         = ["ops@example.org"]
  }
  assert {
    condition     = one([for r in aws_apigatewayv2_stage.this.route_settings : r.throttling_rate_limit if r.route_key == "POST /start"]) == 7
    error_message = "The throttle of a route cannot be changed."
  }
  assert {
    condition     = aws_lambda_function.this["api"].memory_size == 512 && aws_lambda_function.this["worker"].memory_size == 256 && aws_lambda_function.this["worker"].reserved_concurrent_executions == 10
    error_message = "Memory or concurrency of one function cannot be changed alone."
  }
  assert {
    condition     = keys(aws_sns_topic_subscription.email) == ["ops@example.org"]
    error_message = "The address is not subscribed."
  }
}

run "package_directory" {
  variables {
    package = {
      directory = "tests/package"
      sha256    = { api = "11b617d2237259cffd5b7f3598d0eab8f2f0ddcadb72e58dbdc86f75142c7160" }
    }
  }
  assert {
    condition     = alltrue([for part, f in aws_lambda_function.this : f.filename == "tests/package/garo-${part}-linux-arm64.zip" && f.source_code_hash == filebase64sha256("tests/package/garo-${part}-linux-arm64.zip")])
    error_message = "A function is not made of the file."
  }
  assert {
    condition     = local.digests.api == aws_lambda_function.this["api"].source_code_hash
    error_message = "The digest in hex and the one in base64 differ."
  }
}

run "package_file_missing" {
  command = plan
  variables {
    package      = { directory = "tests/package" }
    architecture = "amd64"
  }
  expect_failures = [aws_lambda_function.this["api"], aws_lambda_function.this["worker"], aws_lambda_function.this["reaper"]]
}

run "package_digest_differs" {
  command = plan
  variables {
    package = {
      directory = "tests/package"
      sha256    = { worker = "11b617d2237259cffd5b7f3598d0eab8f2f0ddcadb72e58dbdc86f75142c7160" }
    }
  }
  expect_failures = [aws_lambda_function.this["worker"]]
}

run "package_object_differs" {
  variables {
    package = {
      s3_bucket = "releases"
      sha256    = { for part in ["api", "worker", "reaper"] : part => "11b617d2237259cffd5b7f3598d0eab8f2f0ddcadb72e58dbdc86f75142c7160" }
    }
  }
  expect_failures = [check.package_objects]
}

run "domain" {
  variables {
    domain = { name = "garo.example.org", certificate_arn = "arn:aws:acm:eu-west-2:111111111111:certificate/1", zone_id = "Z1" }
  }
  assert {
    condition     = output.url == "https://garo.example.org" && aws_lambda_function.this["api"].environment[0].variables.GARO_URL == output.url && aws_lambda_function.this["worker"].environment[0].variables.GARO_URL == output.url
    error_message = "The functions do not know the domain."
  }
  assert {
    condition     = aws_apigatewayv2_api.this.disable_execute_api_endpoint && keys(aws_route53_record.this) == ["A", "AAAA"]
    error_message = "The API's own address stays open, or the record is not made."
  }
}

run "domain_without_zone" {
  variables {
    domain = { name = "garo.example.org", certificate_arn = "arn:aws:acm:eu-west-2:111111111111:certificate/1" }
  }
  assert {
    condition     = length(aws_route53_record.this) == 0 && output.domain_target == "d-1234567890.execute-api.eu-west-2.amazonaws.com"
    error_message = "A record is made in no zone, or nobody is told where it has to point."
  }
}

run "kms_key" {
  variables {
    kms_key_arn = "arn:aws:kms:eu-west-2:111111111111:key/1"
  }
  assert {
    condition = alltrue([for key in concat(
      [aws_dynamodb_table.this.server_side_encryption[0].kms_key_arn, aws_sqs_queue.this.kms_master_key_id, aws_sqs_queue.dead.kms_master_key_id],
      [aws_ssm_parameter.keys[0].key_id, aws_ssm_parameter.operators.key_id, aws_ssm_parameter.account["222222222222"].key_id],
      [aws_cloudwatch_log_group.functions.kms_key_id, aws_cloudwatch_log_group.access.kms_key_id, aws_sns_topic.alarms.kms_master_key_id],
      [for f in aws_lambda_function.this : f.kms_key_arn],
    ) : key == var.kms_key_arn])
    error_message = "Something is not under the key."
  }
  assert {
    condition     = aws_ssm_parameter.keys[0].value_wo_version != parseint(substr(sha256(jsonencode([["k1"], null])), 0, 7), 16)
    error_message = "The keys would be written without their value when the KMS key changes."
  }
  assert {
    condition     = alltrue([for p in aws_iam_role_policy.function : strcontains(p.policy, "kms:Decrypt")])
    error_message = "A function cannot use the key."
  }
}

run "keys_are_rotated_by_their_ids" {
  variables {
    key_ids = ["k2", "k1"]
  }
  assert {
    condition     = keys(random_password.key) == ["k1", "k2"] && aws_ssm_parameter.keys[0].value_wo_version != parseint(substr(sha256(jsonencode([["k1"], null])), 0, 7), 16)
    error_message = "A second key is not made and written."
  }
}

run "no_keys_in_the_state" {
  variables {
    key_ids = []
  }
  assert {
    condition     = length(aws_ssm_parameter.keys) == 0 && length(random_password.key) == 0 && length(random_password.id_key) == 0
    error_message = "Terraform makes keys that it was not asked for."
  }
}

run "no_accounts_no_roles_to_borrow" {
  variables {
    accounts = {}
    tracing  = true
  }
  assert {
    condition     = !anytrue([for p in aws_iam_role_policy.function : strcontains(p.policy, "sts:")])
    error_message = "A function may take on roles though no account is registered."
  }
  assert {
    condition     = alltrue([for part, f in aws_lambda_function.this : f.tracing_config[0].mode == "Active" && strcontains(aws_iam_role_policy.function[part].policy, "xray:PutTraceSegments")])
    error_message = "Tracing is on, but a function cannot write traces."
  }
}

run "functions_in_a_vpc" {
  variables {
    vpc = { subnets = ["subnet-0a", "subnet-0b"], security_groups = ["sg-0a"] }
  }
  assert {
    condition     = alltrue([for f in aws_lambda_function.this : f.vpc_config[0].subnet_ids == toset(["subnet-0a", "subnet-0b"]) && f.vpc_config[0].security_group_ids == toset(["sg-0a"])])
    error_message = "A function is not in the subnets, with the group: it would call GitHub from another address."
  }
  assert {
    condition     = alltrue([for p in aws_iam_role_policy.function : strcontains(p.policy, "ec2:CreateNetworkInterface")])
    error_message = "Lambda may not make the interfaces of a function."
  }
}

run "another_partition" {
  override_data {
    target = data.aws_partition.current
    values = { partition = "aws-eusc", dns_suffix = "amazonaws.eu" }
  }
  override_data {
    target = data.aws_region.current
    values = { region = "eusc-de-east-1" }
  }
  variables {
    permissions_boundary = "arn:aws-eusc:iam::111111111111:policy/boundary"
  }
  assert {
    condition     = alltrue([for p in aws_iam_role_policy.function : !strcontains(p.policy, "\"arn:aws:ssm") && strcontains(p.policy, "arn:aws-eusc:ssm:eusc-de-east-1")])
    error_message = "A function's role names the commercial partition."
  }
  assert {
    condition     = local.roles["222222222222"] == "arn:aws-eusc:iam::222222222222:role/GitHubRunnerAssumeRole"
    error_message = "An account's role is taken from the commercial partition."
  }
}
