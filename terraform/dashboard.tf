locals {
  queries = {
    "by request"         = <<-EOT
      fields @timestamp, @logStream, level, msg, @message
      | filter request = "PUT THE REQUEST ID HERE"
      | sort @timestamp asc
    EOT
    "by runner"          = <<-EOT
      fields @timestamp, @logStream, level, msg, @message
      | filter runner = "PUT THE RUNNER ID HERE"
      | sort @timestamp asc
    EOT
    "failures by reason" = <<-EOT
      filter level in ["WARN", "ERROR"]
      | stats count(*) as lines, latest(@timestamp) as last by level, msg, alarm
      | sort lines desc
    EOT
    "alarms"             = <<-EOT
      fields @timestamp, alarm, msg, request, runner, @message
      | filter ispresent(alarm)
      | sort @timestamp desc
    EOT
    "slow calls"         = <<-EOT
      filter @type = "REPORT" or type = "platform.report"
      | stats count(*), avg(record.metrics.durationMs), pct(record.metrics.durationMs, 99), max(record.metrics.maxMemoryUsedMB) by record.status
    EOT
  }

  function_metric = { for metric in ["Invocations", "Errors", "Throttles", "Duration"] : metric => [
    for part in keys(local.functions) : ["AWS/Lambda", metric, "FunctionName", "${var.name}-${part}"]
  ] }

  # The metrics that the functions write into the log: package internal/metrics.
  metric = { for m in [
    "Accepted", "Ready", "Failed", "TimeToReady", "LaunchErrors", "Live", "Orphans", "GitHubLeft", "OldestWait", "Brake",
  ] : m => ["GARO", m, "ControlPlane", var.name] }

  # Each shard of the reaper measures its part of the whole once a minute: the sum is the
  # average of the parts by their number, whenever in the minute each is written.
  parts = { for m in ["Live", "Orphans", "Brake"] : m => [
    concat(local.metric[m], [{ id = lower(m), stat = "Average", visible = false }]),
    [{ expression = "${lower(m)} * ${var.reaper_shards}", label = m, id = "all_${lower(m)}" }],
  ] }

  widgets = [
    { title = "Requests", stat = "Sum", metrics = [local.metric.Accepted, local.metric.Ready, local.metric.Failed] },
    { title = "Time to ready, s", stat = "p50", metrics = [for p in ["p50", "p90", "p99"] : concat(local.metric.TimeToReady, [{ stat = p, label = p }])] },
    { title = "Machines", stat = "Average", metrics = concat(local.parts.Live, local.parts.Orphans) },
    { title = "Oldest request in line, s", stat = "Maximum", metrics = [local.metric.OldestWait] },
    { title = "Launch errors, and regions with the brake on", stat = "Sum", metrics = concat([local.metric.LaunchErrors], local.parts.Brake) },
    { title = "GitHub's calls of the hour that are left, %", stat = "Minimum", metrics = [local.metric.GitHubLeft] },
    { title = "Calls", stat = "Sum", metrics = [for m in ["Count", "4xx", "5xx"] : ["AWS/ApiGateway", m, "ApiId", aws_apigatewayv2_api.this.id]] },
    { title = "Time of a call, ms", stat = "p99", metrics = [["AWS/ApiGateway", "Latency", "ApiId", aws_apigatewayv2_api.this.id]] },
    { title = "Messages", stat = "Maximum", metrics = concat(
      [for m in ["ApproximateNumberOfMessagesVisible", "ApproximateNumberOfMessagesDelayed", "ApproximateNumberOfMessagesNotVisible"] : ["AWS/SQS", m, "QueueName", "${var.name}-requests"]],
      [["AWS/SQS", "ApproximateNumberOfMessagesVisible", "QueueName", "${var.name}-requests-dead"]],
    ) },
    { title = "Age of the oldest message, s", stat = "Maximum", metrics = [["AWS/SQS", "ApproximateAgeOfOldestMessage", "QueueName", "${var.name}-requests"]] },
    { title = "Invocations", stat = "Sum", metrics = local.function_metric.Invocations },
    { title = "Errors and throttles", stat = "Sum", metrics = concat(local.function_metric.Errors, local.function_metric.Throttles) },
    { title = "Time of an invocation, ms", stat = "p99", metrics = local.function_metric.Duration },
    { title = "Table", stat = "Sum", metrics = [for m in ["ConsumedReadCapacityUnits", "ConsumedWriteCapacityUnits"] : ["AWS/DynamoDB", m, "TableName", local.table]] },
  ]
}

resource "aws_cloudwatch_query_definition" "this" {
  for_each = local.queries

  name            = "${var.name}/${each.key}"
  log_group_names = [aws_cloudwatch_log_group.functions.name]
  query_string    = each.value
}

resource "aws_cloudwatch_dashboard" "this" {
  dashboard_name = var.name
  dashboard_body = jsonencode({
    widgets = concat(
      [{
        type       = "alarm", x = 0, y = 0, width = 24, height = 3
        properties = { title = "Alarms", alarms = [for name in sort(keys(local.alarms)) : aws_cloudwatch_metric_alarm.this[name].arn] }
      }],
      [for i, w in local.widgets : {
        type = "metric", x = (i % 2) * 12, y = 3 + floor(i / 2) * 6, width = 12, height = 6
        properties = {
          title   = w.title, region = local.region, view = "timeSeries", stat = w.stat, period = 60
          metrics = w.metrics
        }
      }],
      [{
        type = "log", x = 0, y = 3 + ceil(length(local.widgets) / 2) * 6, width = 24, height = 6
        properties = {
          title = "Failures by reason", region = local.region, view = "table"
          query = "SOURCE '${aws_cloudwatch_log_group.functions.name}' | ${local.queries["failures by reason"]}"
        }
      }],
    )
  })
}
