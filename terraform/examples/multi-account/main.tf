# One control plane for machines in two AWS accounts and two regions. The control
# plane has an account of its own, with no machine in it.

provider "aws" {
  region = "eu-west-2"

  default_tags {
    tags = { Project = "garo" }
  }
}

provider "aws" {
  alias  = "build"
  region = "eu-west-2"

  assume_role {
    role_arn = "arn:aws:iam::${var.accounts.build}:role/${var.deployer_role}"
  }

  default_tags {
    tags = { Project = "garo" }
  }
}

provider "aws" {
  alias  = "deploy"
  region = "eu-west-1"

  assume_role {
    role_arn = "arn:aws:iam::${var.accounts.deploy}:role/${var.deployer_role}"
  }

  default_tags {
    tags = { Project = "garo" }
  }
}

module "control_plane" {
  source = "../.."

  package = var.package
  accounts = {
    (var.accounts.build) = merge(module.build.registration, {
      owners      = [var.owner]
      max_runners = 100
    })
    # Only what runs on the main branch, one job on each machine.
    (var.accounts.deploy) = merge(module.deploy.registration, {
      repositories = [var.deploy_repository]
      modes        = ["ephemeral"]
      markets      = ["ondemand"]
      only         = { refs = ["refs/heads/main"] }
    })
  }
}

module "build" {
  source    = "../../modules/account"
  providers = { aws = aws.build }

  control_plane = module.control_plane.control_plane
  external_id   = module.control_plane.external_ids[var.accounts.build]
  regions       = { eu-west-2 = var.networks.build }
}

module "deploy" {
  source    = "../../modules/account"
  providers = { aws = aws.deploy }

  control_plane = module.control_plane.control_plane
  external_id   = module.control_plane.external_ids[var.accounts.deploy]
  regions       = { eu-west-1 = var.networks.deploy }
}
