# Each alarm of the code is one line in the log with alarm=CODE. The list is that
# of package store.
locals {
  codes = {
    compromised     = "A boot token was used twice: somebody else holds what one machine was given. The machine is ended; look who read its user data."
    boot_identity   = "A boot came with a machine's token, and without AWS's word that it comes from that machine: it was refused. The log line has the instance, the one that was claimed, and why. If they differ, look who read the user data; if there was no word, look why the machine's metadata service is away."
    job_stolen      = "A job of another run took an ephemeral runner: look for a workflow that names another's own label."
    job_forbidden   = "A workflow job that names labels of ours may have no machine, or was refused on the machine that it was given: the log line says why. Allow its run in the registration, change the workflow, or find out who wrote it."
    job_waits       = "A workflow job is queued, and its machine idle: GitHub holds the job back, as with max-parallel, or gave it to nobody. Or it lost one machine after another, or its machine cannot be set up, and the alarm has what the set-up printed. Look whether the runner group admits the repository, and which jobs have the same labels."
    runner_two_jobs = "A machine for one job took two, by GitHub's word: report it, with the runner's record."
    runner_too_old  = "GitHub refuses the runner program of an image: build a new image, or set runner_programs."
    token_mismatch  = "EC2 knows a client token with other parameters: report it, with the runner's record."
    launch_refused  = "EC2 or STS refuses a launch for a reason that only people can fix: the log line has its text."
    terminate       = "EC2 refuses to terminate a machine: end it by hand, and look at the role's policy."
    access          = "An account, its role, its credential parameter or its registration cannot be used: the log line says which, and what is missing."
    github          = "GitHub refuses a credential: the log line has which one, and GitHub's words. Renew the token, or look at the App's permissions and whether it is suspended. If the account has others, they stand in meanwhile."
    brake           = "A sweep would end more than three machines that no record names: look at the table, then release it with garo reap --release ACCOUNT/REGION."
    busy_runner     = "A draining runner waits for a job that GitHub alone knows of, or whose machine is silent: look at the repository's runners, then end the machine by hand, or leave it to its hard limit."
    rogue_runner    = "GitHub has a runner under our names that no record knows: find out who registered it."
    tags_edited     = "Somebody edited the tags of a machine that is in use: it is left alone, but give it back the tags of its record, or GARO may not end it."
    budget          = "The machines of an account that ended today cost 80 % of its daily_budget: look who uses them with garo cost, or raise it. If the budget says so, starts wait for the next day once all of it is spent."
    machine_flood   = "A machine reports far more than its jobs need: most likely a job with root on it floods the API. What is too much is not written, and the machine ends at its hard limit: stop its request with force, and look which job it ran."
    panic           = "A function panicked: report it, with the log line."
    webhook         = "A delivery of GitHub's was signed right and could not be read, or the GitHub App was suspended or removed: the log line says which. If GitHub changed its deliveries, report it: jobs get no machine meanwhile. Else have the organisation's owner look at the App."
    unknown_message = "A message names a record that the table does not have: look whether the table was restored or the queue is another's."
    reaper_late     = "Three of five runs of the reaper ended before they were done: the log line counts what was left, by phase. If it is requests, look why the worker does not take them up; if GitHub or EC2 is slow, wait; else raise memory_mb, and then reaper_shards."
    reaper          = "Three of five runs of the reaper failed, in part or whole: the log lines before each name every failure. What was left is done by the next run that can."

    launch_throttled    = "EC2 refuses launches for their pace: the log line has how many of how many, and the pacing of the account's registration. If AWS never granted that pace, lower pacing. If it did, look who else launches in the account, or ask AWS Support for a larger RunInstances bucket."
    runner_version_ends = "GitHub will refuse the version of a runner program within a week: the log line has the version and the day. Build a new image, or set runner_programs."
  }

  # Each code but two is a fact that one line proves, so one datapoint is enough. A
  # run of the reaper also fails by faults that pass, such as one call that EC2
  # throttles or GitHub answers with 502, and is late when much comes at once, and the
  # run a minute later makes it good: three such runs of five are worth a person's time.
  lasts = { evaluation_periods = 5, datapoints_to_alarm = 3 }

  alarm = {
    period             = 60, evaluation_periods = 1, datapoints_to_alarm = 1
    statistic          = "Sum", comparison_operator = "GreaterThanThreshold", threshold = 0
    treat_missing_data = "notBreaching"
  }

  alarms = merge(
    { for code, text in local.codes : "alarm-${code}" => merge(local.alarm, contains(["reaper", "reaper_late"], code) ? local.lasts : {}, {
      namespace = local.namespace, metric_name = code, dimensions = {}, description = text
    }) },
    { for part in ["api", "worker"] : "${part}-errors" => merge(local.alarm, {
      # One failed call is tried again by its sender; a second in five minutes is a pattern.
      namespace = "AWS/Lambda", metric_name = "Errors", dimensions = { FunctionName = "${var.name}-${part}" }
      period    = 300, threshold = 1, description = "The ${part} failed more than once in five minutes: look for ERROR lines and timeouts in the log."
    }) },
    { for part, f in local.functions : "${part}-throttles" => merge(local.alarm, {
      namespace   = "AWS/Lambda", metric_name = "Throttles", dimensions = { FunctionName = "${var.name}-${part}" }
      period      = 300, evaluation_periods = 2, datapoints_to_alarm = 2,
      description = "Lambda holds the ${part} back: raise the account's concurrency or reserved_concurrency."
    }) },
    {
      dead-letters = merge(local.alarm, {
        namespace   = "AWS/SQS", metric_name = "ApproximateNumberOfMessagesVisible", dimensions = { QueueName = "${var.name}-requests-dead" }
        statistic   = "Maximum"
        description = "A message failed five times. Its request is still served by the reaper; look at the message and the log, then redrive or delete it."
      })
      oldest-message = merge(local.alarm, {
        # A message may rightly wait for 15 minutes, the longest delay that SQS knows.
        namespace   = "AWS/SQS", metric_name = "ApproximateAgeOfOldestMessage", dimensions = { QueueName = "${var.name}-requests" }
        statistic   = "Maximum", threshold = 1200, evaluation_periods = 2, datapoints_to_alarm = 2
        description = "Messages are not worked off: look whether the worker runs, and what it waits for."
      })
      reaper-errors = merge(local.alarm, local.lasts, {
        # With what alarm-reaper counts, this has runs that crash or take too long.
        namespace   = "AWS/Lambda", metric_name = "Errors", dimensions = { FunctionName = "${var.name}-reaper" }
        description = "Three of five runs of the reaper failed: look for ERROR lines and timeouts in the log."
      })
      reaper-not-run = merge(local.alarm, {
        # Lambda counts no invocation as no data, not as zero: the topic hears of it as
        # INSUFFICIENT_DATA. As "breaching", missing data would be an alarm at each first
        # deploy, since there is none before the first run. A reaper that never ran at
        # all stays in that state without a message: docs/deploy.md says to look once.
        namespace           = "AWS/Lambda", metric_name = "Invocations", dimensions = { FunctionName = "${var.name}-reaper" }
        comparison_operator = "LessThanThreshold", threshold = 1, period = 300, treat_missing_data = "missing"
        description         = "The reaper has not run for five minutes, whether this says ALARM or INSUFFICIENT_DATA: nothing is ended but by the machines' own timers. Look at the schedule."
      })
      api-5xx = merge(local.alarm, {
        namespace   = "AWS/ApiGateway", metric_name = "5xx", dimensions = { ApiId = aws_apigatewayv2_api.this.id }
        period      = 300, threshold = 4
        description = "The API answered 5xx at least five times in five minutes: look at the log of the API and of its stage."
      })
    },
  )

  namespace = "GARO/${var.name}"
}

# No default value: a metric without data costs nothing.
resource "aws_cloudwatch_log_metric_filter" "alarm" {
  for_each = local.codes

  name           = "${var.name}-${each.key}"
  log_group_name = aws_cloudwatch_log_group.functions.name
  pattern        = "{ $.alarm = \"${each.key}\" }"

  metric_transformation {
    namespace = local.namespace
    name      = each.key
    value     = "1"
    unit      = "Count"
  }
}

resource "aws_cloudwatch_metric_alarm" "this" {
  for_each = local.alarms

  alarm_name          = "${var.name}-${each.key}"
  alarm_description   = each.value.description
  namespace           = each.value.namespace
  metric_name         = each.value.metric_name
  dimensions          = each.value.dimensions
  statistic           = each.value.statistic
  period              = each.value.period
  evaluation_periods  = each.value.evaluation_periods
  datapoints_to_alarm = each.value.datapoints_to_alarm
  comparison_operator = each.value.comparison_operator
  threshold           = each.value.threshold
  treat_missing_data  = each.value.treat_missing_data
  alarm_actions       = [aws_sns_topic.alarms.arn]
  ok_actions          = [aws_sns_topic.alarms.arn]
  tags                = local.tags

  insufficient_data_actions = each.value.treat_missing_data == "missing" ? [aws_sns_topic.alarms.arn] : []
}

# Without a key of yours it has none: CloudWatch cannot publish to a topic under
# the key that AWS keeps for SNS, and alarms hold no secret.
resource "aws_sns_topic" "alarms" {
  name              = "${var.name}-alarms"
  kms_master_key_id = var.kms_key_arn
  tags              = local.tags
}

resource "aws_sns_topic_policy" "alarms" {
  arn = aws_sns_topic.alarms.arn
  policy = jsonencode({
    Version = "2012-10-17"
    Statement = [
      {
        Sid       = "CloudWatch"
        Effect    = "Allow"
        Principal = { Service = "cloudwatch.amazonaws.com" }
        Action    = "sns:Publish"
        Resource  = aws_sns_topic.alarms.arn
        Condition = { StringEquals = { "aws:SourceAccount" = local.account } }
      },
      {
        Sid       = "TLSOnly"
        Effect    = "Deny"
        Principal = "*"
        Action    = "sns:Publish"
        Resource  = aws_sns_topic.alarms.arn
        Condition = { Bool = { "aws:SecureTransport" = "false" } }
      },
    ]
  })
}

resource "aws_sns_topic_subscription" "email" {
  for_each = toset(var.alarm_emails)

  topic_arn = aws_sns_topic.alarms.arn
  protocol  = "email"
  endpoint  = each.key
}
