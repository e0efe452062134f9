mock_provider "aws" {
  source = "../../tests/mocks"
}

mock_provider "aws" {
  alias  = "build"
  source = "../../tests/mocks"

  override_data {
    target = module.build.data.aws_caller_identity.current
    values = { account_id = "222222222222" }
  }
}

mock_provider "aws" {
  alias  = "deploy"
  source = "../../tests/mocks"

  override_data {
    target = module.deploy.data.aws_caller_identity.current
    values = { account_id = "333333333333" }
  }
}

mock_provider "random" {
  mock_resource "random_password" {
    defaults = { result = "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa" }
  }
}

variables {
  package = {
    s3_bucket = "releases"
    sha256    = { for part in ["api", "worker", "reaper"] : part => "9930a7aad20b910b10dd68ba4558083b7527351a23cb60d8d9a082761a416a1b" }
  }
  accounts          = { build = "222222222222", deploy = "333333333333" }
  owner             = { id = "1", name = "acme" }
  deploy_repository = { id = "2", name = "acme/shop" }
  networks = {
    build  = { vpc_id = "vpc-0b", subnets = ["subnet-0b"] }
    deploy = { vpc_id = "vpc-0d", subnets = ["subnet-0d"] }
  }
}

run "each_account_has_its_own_external_id" {
  assert {
    condition     = keys(nonsensitive(module.control_plane.external_ids)) == ["222222222222", "333333333333"]
    error_message = "An account is not registered."
  }
  assert {
    condition     = module.build.registration.role_arn == "arn:aws:iam::222222222222:role/GitHubRunnerAssumeRole" && module.deploy.registration.role_arn == "arn:aws:iam::333333333333:role/GitHubRunnerAssumeRole"
    error_message = "A registration names another account's role."
  }
  assert {
    condition     = keys(module.build.registration.regions) == ["eu-west-2"] && keys(module.deploy.registration.regions) == ["eu-west-1"]
    error_message = "A registration names another account's region."
  }
}
