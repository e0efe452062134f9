data "aws_caller_identity" "current" {}
data "aws_partition" "current" {}
data "aws_region" "current" {}

locals {
  account   = data.aws_caller_identity.current.account_id
  partition = data.aws_partition.current.partition
  region    = data.aws_region.current.region

  tags = merge({ Service = "garo", ControlPlane = var.name }, var.tags)

  # Every call's address, and what callers' ID tokens must have as their audience.
  url = var.domain == null ? aws_apigatewayv2_api.this.api_endpoint : "https://${var.domain.name}"

  roles = {
    for id, a in var.accounts : id =>
    a.role_arn != null ? a.role_arn : "arn:${local.partition}:iam::${id}:role/GitHubRunnerAssumeRole"
  }
}
