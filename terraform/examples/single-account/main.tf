# Control plane and machines in one AWS account, on its default network: the
# shortest way to a first runner.

provider "aws" {
  region = var.region

  default_tags {
    tags = { Project = "garo" }
  }
}

data "aws_caller_identity" "current" {}

data "aws_vpc" "default" {
  default = true
}

# Those that AWS made, one in each zone: they give machines a public address. Others
# that somebody added to the VPC may lead nowhere, or to where no job belongs.
data "aws_subnets" "default" {
  filter {
    name   = "vpc-id"
    values = [data.aws_vpc.default.id]
  }

  filter {
    name   = "default-for-az"
    values = ["true"]
  }
}

locals {
  account = data.aws_caller_identity.current.account_id
}

module "control_plane" {
  source = "../.."

  package             = var.package
  operators           = var.operators
  key_ids             = var.key_ids
  table               = var.table
  runner_programs     = var.runner_programs
  alarm_emails        = var.alarm_emails
  deletion_protection = var.deletion_protection
  accounts = {
    (local.account) = merge(module.account.registration, { owners = [var.owner] }, var.registration)
  }
}

module "account" {
  source = "../../modules/account"

  control_plane           = module.control_plane.control_plane
  external_id             = module.control_plane.external_ids[local.account]
  github_credential       = var.github_credential
  more_github_credentials = var.more_github_credentials
  regions = {
    (var.region) = {
      vpc_id  = data.aws_vpc.default.id
      subnets = data.aws_subnets.default.ids
    }
  }
}
