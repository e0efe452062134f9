locals {
  batch_window_s = 1

  # The timeouts: API Gateway would wait 30 s for the API, which has answered long
  # before; a worker does several launches; a reaper ends before the next begins.
  # The memory is measured, see docs/performance.md: the API waits more than it works;
  # the reaper works, and a processor comes in proportion to the memory.
  functions = {
    api    = { timeout = 10, memory = 256, description = "Records requests and hears machines." }
    worker = { timeout = 30, memory = 256, description = "Finds or launches a runner for a request." }
    reaper = { timeout = 50, memory = 512, description = "Retries overdue work, and ends expired runners." }
  }

  # The API offers the runner programs; the worker knows by them whether an image that
  # had a refused one may be launched again.
  programs = length(var.runner_programs) == 0 ? {} : { GARO_RUNNER_PROGRAMS = jsonencode(var.runner_programs) }

  # What each program requires of its environment, and no more.
  environment = {
    api = merge({
      GARO_CONTROL_PLANE = var.name
      GARO_TABLE         = aws_dynamodb_table.this.name
      GARO_QUEUE_URL     = aws_sqs_queue.this.url
      GARO_PARAMETERS    = local.parameters
      GARO_URL           = local.url
      GARO_OIDC_ISSUERS  = join(",", var.oidc_issuers)
      GARO_LOG_LEVEL     = var.log_level
    }, local.programs)
    worker = merge({
      GARO_CONTROL_PLANE = var.name
      GARO_TABLE         = aws_dynamodb_table.this.name
      GARO_QUEUE_URL     = aws_sqs_queue.this.url
      GARO_PARAMETERS    = local.parameters
      GARO_URL           = local.url
      GARO_GITHUB_URL    = var.github_url
      GARO_LOG_LEVEL     = var.log_level
    }, local.programs)
    reaper = {
      GARO_CONTROL_PLANE = var.name
      GARO_TABLE         = aws_dynamodb_table.this.name
      GARO_QUEUE_URL     = aws_sqs_queue.this.url
      GARO_PARAMETERS    = local.parameters
      GARO_GITHUB_URL    = var.github_url
      GARO_PRICES_URL    = var.prices_url
      GARO_REAPER_SHARDS = tostring(var.reaper_shards)
      GARO_LOG_LEVEL     = var.log_level
    }
  }

  zips  = { for part in keys(local.functions) : part => "garo-${part}-linux-${var.architecture}.zip" }
  files = { for part, zip in local.zips : part => var.package.directory == null ? null : "${var.package.directory}/${zip}" }

  # Lambda and Terraform speak of a digest in base64, sha256sum in hex: three hex
  # digits are two of base64, and 64 of them lack two for a whole number of threes.
  base64 = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"
  digests = {
    for part, sum in var.package.sha256 : part => join("", concat([
      for three in slice(regexall("...", "${sum}00"), 0, 21) : join("", [
        substr(local.base64, floor(parseint(three, 16) / 64), 1),
        substr(local.base64, parseint(three, 16) % 64, 1),
      ])
    ], [substr(local.base64, floor(parseint("${substr(sum, 63, 1)}00", 16) / 64), 1), "="]))
  }
}

# One log for all three, so that a request's whole story stands in one place. The
# names of its streams begin with the date and the function.
resource "aws_cloudwatch_log_group" "functions" {
  #checkov:skip=CKV_AWS_338: var.log_retention_days says how long; records, which are the audit trail, are kept in the table
  name              = "/aws/lambda/${var.name}"
  retention_in_days = var.log_retention_days
  kms_key_id        = var.kms_key_arn
  tags              = local.tags
}

resource "aws_lambda_function" "this" {
  #checkov:skip=CKV_AWS_116: the API is called synchronously, the worker has the queue's dead letters, and a lost run of the reaper is repeated a minute later
  #checkov:skip=CKV_AWS_117: the functions call AWS and GitHub alone; a VPC adds a NAT gateway, and is for those who need a fixed address (var.vpc)
  #checkov:skip=CKV_AWS_272: the zips are verified by their SHA-256; a signing profile would be one more thing to keep
  for_each = local.functions

  function_name = "${var.name}-${each.key}"
  description   = each.value.description
  role          = aws_iam_role.function[each.key].arn
  runtime       = "provided.al2023"
  architectures = [var.architecture == "arm64" ? "arm64" : "x86_64"]
  handler       = "bootstrap"
  timeout       = each.value.timeout
  memory_size   = lookup(var.memory_mb, each.key, each.value.memory)
  kms_key_arn   = var.kms_key_arn

  filename  = local.files[each.key]
  s3_bucket = var.package.s3_bucket
  s3_key    = var.package.s3_bucket == null ? null : "${var.package.s3_prefix}${local.zips[each.key]}"
  source_code_hash = try(
    var.package.directory == null ? local.digests[each.key] : filebase64sha256(local.files[each.key]),
    null,
  )

  reserved_concurrent_executions = lookup(var.reserved_concurrency, each.key, -1)

  environment {
    variables = local.environment[each.key]
  }

  dynamic "vpc_config" {
    for_each = var.vpc == null ? [] : [var.vpc]
    content {
      subnet_ids         = vpc_config.value.subnets
      security_group_ids = vpc_config.value.security_groups
    }
  }

  # Lambda drops what is below its own level, so both are the same.
  logging_config {
    log_format            = "JSON"
    application_log_level = upper(var.log_level)
    system_log_level      = "INFO" # reports of each invocation, with its memory and its end
    log_group             = aws_cloudwatch_log_group.functions.name
  }

  tracing_config {
    mode = var.tracing ? "Active" : "PassThrough"
  }

  tags = local.tags

  lifecycle {
    precondition {
      condition     = var.package.directory == null || fileexists(coalesce(local.files[each.key], "none"))
      error_message = "There is no ${coalesce(local.files[each.key], "zip")}: run `make build`, or download the release's zips there."
    }
    precondition {
      condition = (
        var.package.directory == null || !contains(keys(var.package.sha256), each.key) ||
        try(filesha256(local.files[each.key]), "") == lookup(var.package.sha256, each.key, "none")
      )
      error_message = "The SHA-256 of ${coalesce(local.files[each.key], "the zip")} is not the one in package.sha256: download it again, and compare with the release's checksums."
    }
  }

  # A function that runs before it may read and write fails.
  depends_on = [aws_iam_role_policy.function]
}

# A warning, not a refusal: while an upgrade is planned, Lambda still says what ran before.
check "package_objects" {
  assert {
    condition     = var.package.s3_bucket == null ? true : alltrue([for part, f in aws_lambda_function.this : f.code_sha256 == lookup(local.digests, part, "none")])
    error_message = "The functions do not run the zips of package.sha256. In a plan this only says that they are not there yet; after an apply, the objects in the bucket are others: upload them again, or correct the digests."
  }
}

resource "aws_lambda_event_source_mapping" "worker" {
  event_source_arn                   = aws_sqs_queue.this.arn
  function_name                      = aws_lambda_function.this["worker"].arn
  batch_size                         = 25 # requests that line up for their launches share one commit, of at most 100 items
  maximum_batching_window_in_seconds = local.batch_window_s
  function_response_types            = ["ReportBatchItemFailures"]
  tags                               = local.tags

  # A worker waits for no slot, but EC2 and GitHub take 2 s for a launch: 2 a second keep
  # four workers busy, as long as an account's burst lasts. Ten are enough for two
  # accounts at once and for everything else, which takes milliseconds. Of GitHub's calls
  # that are not leased, each keeps within a tenth (github.DefaultShare).
  scaling_config {
    maximum_concurrency = 10
  }
}

# The worker sends messages to the queue that invokes it: a request that waits for a
# slot, a runner that is not yet to be shared, a launch to be taken up. Lambda counts
# invocations along a chain of messages, by the trace header that the AWS SDK passes
# on, takes the 17th for a runaway loop and refuses it: the message would be dead
# after five receives. Ours ends on its own, since each wait has a time, and no
# request is tried past its give_up_at.
resource "aws_lambda_function_recursion_config" "worker" {
  function_name  = aws_lambda_function.this["worker"].function_name
  recursive_loop = "Allow"
}

# The scheduler only hands the call over. A run that failed is not repeated: the
# next one is less than a minute away, and looks at the same records.
resource "aws_lambda_function_event_invoke_config" "reaper" {
  function_name                = aws_lambda_function.this["reaper"].function_name
  maximum_retry_attempts       = 0
  maximum_event_age_in_seconds = 60
}

resource "aws_scheduler_schedule" "reaper" {
  #checkov:skip=CKV_AWS_297: the schedule's input is the number of a shard, so there is nothing to encrypt
  for_each            = { for n in range(var.reaper_shards) : tostring(n) => n }
  name                = each.value == 0 ? "${var.name}-reaper" : "${var.name}-reaper-${each.key}"
  description         = "Runs the reaper of ${var.name} every minute${var.reaper_shards == 1 ? "" : ", shard ${each.key} of ${var.reaper_shards}"}."
  schedule_expression = "rate(1 minute)"

  flexible_time_window {
    mode = "OFF"
  }

  target {
    arn      = aws_lambda_function.this["reaper"].arn
    role_arn = aws_iam_role.scheduler.arn
    input    = var.reaper_shards == 1 ? "{}" : jsonencode({ shard = each.value, of = var.reaper_shards })

    retry_policy {
      maximum_retry_attempts       = 2
      maximum_event_age_in_seconds = 60
    }
  }
}

moved {
  from = aws_scheduler_schedule.reaper
  to   = aws_scheduler_schedule.reaper["0"]
}
