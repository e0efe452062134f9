mock_provider "aws" {
  source = "../../tests/mocks"
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
  owner = { id = "1", name = "acme" }
}

run "one_apply_makes_all" {
  assert {
    condition     = output.url == "https://api1234567.execute-api.eu-west-2.amazonaws.com" && output.account == "111111111111"
    error_message = "The user is not told where the API is."
  }
  assert {
    condition     = { for f in data.aws_subnets.default.filter : f.name => tolist(f.values) } == { vpc-id = tolist(["vpc-0123456789abcdef0"]), default-for-az = tolist(["true"]) }
    error_message = "Machines are launched into subnets that somebody added to the default VPC."
  }
  assert {
    condition     = output.credential_parameter == { name = "/github/runner/pat", region = "eu-west-2" }
    error_message = "The user is not told where to put the credential."
  }
  assert {
    condition     = module.control_plane.external_ids["111111111111"] == "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"
    error_message = "The account has no external id."
  }
}

run "an_app_and_offers" {
  variables {
    github_credential = { parameter = "/github/runner/app", create = false, app_id = 7, installation_id = 8 }
    registration      = { runs_on = [{ pin = "g-linux-" }] }
  }
  assert {
    condition     = output.credential_parameter == { name = "/github/runner/app", region = "eu-west-2" }
    error_message = "The App's key is read elsewhere than where garo app create puts it."
  }
}
