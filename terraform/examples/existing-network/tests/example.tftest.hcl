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
  vpc_name        = "main"
  security_groups = ["sg-0a"]
  kms_key_arn     = "arn:aws:kms:eu-west-2:111111111111:key/1"
  domain          = { name = "garo.example.org", certificate_arn = "arn:aws:acm:eu-west-2:111111111111:certificate/1", zone_id = "Z1" }
  owner           = { id = "1", name = "acme" }
  app             = { app_id = 1, installation_id = 2 }
}

run "takes_the_network_as_it_is" {
  assert {
    condition     = module.account.security_groups == { eu-west-2 = tolist(["sg-0a"]) } && module.account.registration.regions["eu-west-2"].subnets == tolist(["subnet-0000000000000000a", "subnet-0000000000000000b"])
    error_message = "Machines are not in the network that was named."
  }
  assert {
    condition     = output.url == "https://garo.example.org"
    error_message = "The API is not at its domain."
  }
  assert {
    condition     = module.account.registration.github == { parameter = "/github/runner/app-key", app_id = 1, installation_id = 2 }
    error_message = "The App is not registered."
  }
}
