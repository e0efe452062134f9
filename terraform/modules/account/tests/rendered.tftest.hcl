# One account's role, whole, as the tests in internal/test/terraformtest evaluate it.
mock_provider "aws" {
  source = "../../tests/mocks"
}

run "rendered" {
  variables {
    control_plane = {
      name            = "garo"
      worker_role_arn = "arn:aws:iam::999999999999:role/garo-worker"
      reaper_role_arn = "arn:aws:iam::999999999999:role/garo-reaper"
    }
    external_id      = "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"
    instance_types   = ["m7i.large", "m7a.large"]
    image_owners     = ["amazon", "111111111111", "444444444444"]
    instance_profile = { name = "jobs" }
    kms_key_arns     = ["arn:aws:kms:eu-west-2:111111111111:key/volumes"]
    default_region   = "eu-west-2"

    more_github_credentials = [{ parameter = "/github/runner/app", app_id = 7, installation_id = 9 }]

    max_root_volume_gb    = 200
    instance_requirements = { vcpus = { min = 2, max = 16 }, arch = ["x86_64", "arm64"], exclude = ["t*"] }
    machine_tags          = { team = "build" }
    request_tags          = ["cost centre"]
    regions = {
      eu-west-1 = { subnets = ["subnet-0c"], security_groups = ["sg-0c"], images = ["ami-0c"], root_volume = { size_gb = 50, type = "gp3" }, capacity_reservation = "cr-0a" }
      eu-west-2 = { vpc_id = "vpc-0a", subnets = ["subnet-0a", "subnet-0b"], images = ["/aws/service/ami-amazon-linux-latest/al2023-ami-kernel-default-x86_64", "/images/runner"] }
    }
  }

  assert {
    condition     = length(aws_iam_role_policy.this.policy) <= 10240
    error_message = "The role's policy is longer than IAM takes."
  }
}

run "rendered_without_profile" {
  variables {
    control_plane = {
      name            = "garo"
      worker_role_arn = "arn:aws:iam::999999999999:role/garo-worker"
      reaper_role_arn = "arn:aws:iam::999999999999:role/garo-reaper"
    }
    external_id = "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"
    regions     = { eu-west-2 = { vpc_id = "vpc-0a", subnets = ["subnet-0a"] } }
  }

  assert {
    condition     = !strcontains(aws_iam_role_policy.this.policy, "iam:PassRole")
    error_message = "The role may pass a role though machines have none."
  }
}

run "rendered_for_containers" {
  variables {
    control_plane = {
      name            = "garo"
      worker_role_arn = "arn:aws:iam::999999999999:role/garo-worker"
      reaper_role_arn = "arn:aws:iam::999999999999:role/garo-reaper"
    }
    external_id      = "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"
    instance_profile = { name = "jobs" }
    hop_limit        = 2
    regions          = { eu-west-2 = { vpc_id = "vpc-0a", subnets = ["subnet-0a"] } }
  }
}
