# Machines in a network that is already there: private subnets found by their
# tags, security groups of yours, a custom image on Graviton, a domain name, a KMS
# key, and a GitHub App instead of a token.

provider "aws" {
  region = var.region

  default_tags {
    tags = { Project = "garo" }
  }
}

data "aws_caller_identity" "current" {}

data "aws_vpc" "this" {
  tags = { Name = var.vpc_name }
}

data "aws_subnets" "this" {
  filter {
    name   = "vpc-id"
    values = [data.aws_vpc.this.id]
  }
  tags = var.subnet_tags
}

locals {
  account = data.aws_caller_identity.current.account_id
}

module "control_plane" {
  source = "../.."

  package     = var.package
  kms_key_arn = var.kms_key_arn
  domain      = var.domain
  tracing     = true
  accounts = {
    (local.account) = merge(module.account.registration, { owners = [var.owner] })
  }
}

module "account" {
  source = "../../modules/account"

  control_plane     = module.control_plane.control_plane
  external_id       = module.control_plane.external_ids[local.account]
  instance_types    = ["m8g.large", "m7g.large", "m6g.large"]
  github_credential = { parameter = "/github/runner/app-key", app_id = var.app.app_id, installation_id = var.app.installation_id }
  regions = {
    (var.region) = {
      subnets         = data.aws_subnets.this.ids
      security_groups = var.security_groups
      images          = [var.image]
    }
  }
}
