locals {
  # Every call of the API and its throttle: requests a second, and at once. What
  # is above gets 429 before it costs a function; clients and machines try again.
  #
  # A machine takes the agent once (3 MB, hence the least), and boots with a few tries.
  # A waiting client asks for the status every 2 s. Operators' calls are people's.
  #
  # API Gateway throttles a route for all of its callers together, so that who
  # floods one takes from the others. What machines call leaves room for that. 6,000
  # machines with jobs of five minutes send 300 heartbeats a second (one in 20 s each)
  # and 100 events of jobs (five each, 20 jobs a second): 600 of the 1,000 are left for
  # two machines that send 300 a second. They ask for 20 configs a second, three times
  # each, which leaves 240 of 300; and boot far more seldom.
  #
  # GitHub delivers each change of each job: a matrix of 256 is 256 deliveries within a
  # second or two, and GitHub does not deliver again what is refused. So the burst has
  # room for four such matrices, and the rate for 66 jobs a second with three each.
  #
  # Above that, chance decides who is served. A flood of 3,000 a second leaves 29 % of
  # the calls: an agent tries 14 times in the 120 s after which its machine counts as
  # lost, and 99 of 100 are heard. The function refuses a flood of one machine before
  # it reads anything, and its record bounds what is written: SECURITY.md has what each
  # of these costs at most. Larger floods are for a firewall in front of the API.
  routes = {
    "POST /start"                             = { rate = 50, burst = 100 }
    "GET /status/{id}"                        = { rate = 300, burst = 600 }
    "POST /stop/{id}"                         = { rate = 50, burst = 100 }
    "GET /requests"                           = { rate = 5, burst = 20 }
    "GET /runners"                            = { rate = 5, burst = 20 }
    "GET /runners/{id}"                       = { rate = 20, burst = 50 }
    "GET /find"                               = { rate = 5, burst = 20 }
    "GET /usage"                              = { rate = 1, burst = 10 }
    "POST /sweeps/{account}/{region}/release" = { rate = 1, burst = 5 }
    "GET /health"                             = { rate = 5, burst = 20 }
    "POST /checks"                            = { rate = 1, burst = 5 }
    "GET /checks/{id}"                        = { rate = 5, burst = 20 }
    "POST /github/webhook"                    = { rate = 200, burst = 1000 }
    "POST /runners/{id}/boot"                 = { rate = 300, burst = 600 }
    "POST /runners/{id}/events"               = { rate = 1000, burst = 2000 }
    "POST /runners/{id}/next"                 = { rate = 300, burst = 600 }
    "POST /runners/{id}/admission"            = { rate = 100, burst = 300 }
    "GET /agent/linux/{arch}/{sha256}"        = { rate = 30, burst = 100 }
    "GET /"                                   = { rate = 5, burst = 20 }
    "GET /page/{file}"                        = { rate = 10, burst = 40 }
    "GET /healthz"                            = { rate = 5, burst = 10 }
    "GET /openapi.yaml"                       = { rate = 5, burst = 10 }
  }
  throttling = merge({ default = { rate = 10, burst = 20 } }, local.routes, var.throttling)
}

resource "aws_apigatewayv2_api" "this" {
  name                         = var.name
  description                  = "The API of the control plane ${var.name}."
  protocol_type                = "HTTP"
  disable_execute_api_endpoint = var.domain != null
  tags                         = local.tags
}

resource "aws_apigatewayv2_integration" "api" {
  api_id                 = aws_apigatewayv2_api.this.id
  integration_type       = "AWS_PROXY"
  integration_uri        = aws_lambda_function.this["api"].invoke_arn
  payload_format_version = "2.0"
}

# Each call is a route, so that what is none costs no function.
resource "aws_apigatewayv2_route" "this" {
  #checkov:skip=CKV_AWS_309: the API authenticates each call itself: ID tokens by repository, machines and operators by their own tokens, which no authorizer of API Gateway knows
  for_each = local.routes

  api_id             = aws_apigatewayv2_api.this.id
  route_key          = each.key
  authorization_type = "NONE"
  target             = "integrations/${aws_apigatewayv2_integration.api.id}"
}

resource "aws_lambda_permission" "api" {
  statement_id  = "api"
  action        = "lambda:InvokeFunction"
  function_name = aws_lambda_function.this["api"].function_name
  principal     = "apigateway.amazonaws.com"
  source_arn    = "${aws_apigatewayv2_api.this.execution_arn}/*/*"
}

# Log groups of this prefix need no resource policy of their own.
resource "aws_cloudwatch_log_group" "access" {
  #checkov:skip=CKV_AWS_338: var.log_retention_days says how long
  name              = "/aws/vendedlogs/apigateway/${var.name}"
  retention_in_days = var.log_retention_days
  kms_key_id        = var.kms_key_arn
  tags              = local.tags
}

resource "aws_apigatewayv2_stage" "this" {
  api_id      = aws_apigatewayv2_api.this.id
  name        = "$default"
  auto_deploy = true
  tags        = local.tags

  default_route_settings {
    throttling_rate_limit    = local.throttling.default.rate
    throttling_burst_limit   = local.throttling.default.burst
    detailed_metrics_enabled = false
  }

  dynamic "route_settings" {
    for_each = aws_apigatewayv2_route.this
    content {
      route_key              = route_settings.value.route_key
      throttling_rate_limit  = local.throttling[route_settings.key].rate
      throttling_burst_limit = local.throttling[route_settings.key].burst
    }
  }

  access_log_settings {
    destination_arn = aws_cloudwatch_log_group.access.arn
    format = jsonencode({
      time        = "$context.requestTime"
      gateway     = "$context.requestId"
      ip          = "$context.identity.sourceIp"
      agent       = "$context.identity.userAgent"
      route       = "$context.routeKey"
      path        = "$context.path"
      status      = "$context.status"
      bytes       = "$context.responseLength"
      latency_ms  = "$context.responseLatency"
      integration = "$context.integrationStatus"
      error       = "$context.error.message"
    })
  }
}

resource "aws_apigatewayv2_domain_name" "this" {
  count = var.domain == null ? 0 : 1

  domain_name = var.domain.name
  tags        = local.tags

  domain_name_configuration {
    certificate_arn = var.domain.certificate_arn
    endpoint_type   = "REGIONAL"
    security_policy = "TLS_1_2"
  }
}

resource "aws_apigatewayv2_api_mapping" "this" {
  count = var.domain == null ? 0 : 1

  api_id      = aws_apigatewayv2_api.this.id
  domain_name = aws_apigatewayv2_domain_name.this[0].id
  stage       = aws_apigatewayv2_stage.this.id
}

resource "aws_route53_record" "this" {
  for_each = toset(try(var.domain.zone_id, null) == null ? [] : ["A", "AAAA"])

  zone_id = var.domain.zone_id
  name    = var.domain.name
  type    = each.key

  alias {
    name                   = aws_apigatewayv2_domain_name.this[0].domain_name_configuration[0].target_domain_name
    zone_id                = aws_apigatewayv2_domain_name.this[0].domain_name_configuration[0].hosted_zone_id
    evaluate_target_health = false
  }
}
