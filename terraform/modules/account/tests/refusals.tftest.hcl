# Each validation refuses what it is there for.
mock_provider "aws" {
  source = "../../tests/mocks"
}

variables {
  control_plane = {
    name            = "garo"
    worker_role_arn = "arn:aws:iam::111111111111:role/garo-worker"
    reaper_role_arn = "arn:aws:iam::111111111111:role/garo-reaper"
  }
  external_id = "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"
  regions     = { eu-west-2 = { vpc_id = "vpc-0a", subnets = ["subnet-0a"] } }
}

run "control_plane_without_a_name" {
  command = plan
  variables {
    control_plane = { name = "", worker_role_arn = "arn:aws:iam::111111111111:role/garo-worker", reaper_role_arn = "arn:aws:iam::111111111111:role/garo-reaper" }
  }
  expect_failures = [var.control_plane]
}

run "control_plane_role_by_name" {
  command = plan
  variables {
    control_plane = { name = "garo", worker_role_arn = "garo-worker", reaper_role_arn = "garo-reaper" }
  }
  expect_failures = [var.control_plane]
}

run "external_id_made_up" {
  command = plan
  variables {
    external_id = "secret"
  }
  expect_failures = [var.external_id]
}

run "no_regions" {
  command = plan
  variables {
    regions = {}
  }
  expect_failures = [var.regions]
}

run "subnet_by_name" {
  command = plan
  variables {
    regions = { eu-west-2 = { subnets = ["private-a"], vpc_id = "vpc-0a" } }
  }
  expect_failures = [var.regions]
}

run "no_group_and_no_vpc" {
  command = plan
  variables {
    regions = { eu-west-2 = { subnets = ["subnet-0a"] } }
  }
  expect_failures = [var.regions]
}

run "group_by_name" {
  command = plan
  variables {
    regions = { eu-west-2 = { subnets = ["subnet-0a"], security_groups = ["default"] } }
  }
  expect_failures = [var.regions]
}

run "image_by_name" {
  command = plan
  variables {
    regions = { eu-west-2 = { subnets = ["subnet-0a"], vpc_id = "vpc-0a", images = ["ubuntu"] } }
  }
  expect_failures = [var.regions]
}

run "reservation_by_name" {
  command = plan
  variables {
    regions = { eu-west-2 = { subnets = ["subnet-0a"], vpc_id = "vpc-0a", capacity_reservation = "builds" } }
  }
  expect_failures = [var.regions]
}

run "volume_of_nothing" {
  command = plan
  variables {
    max_root_volume_gb = 0
  }
  expect_failures = [var.max_root_volume_gb]
}

run "machine_tag_that_is_ours" {
  command = plan
  variables {
    machine_tags = { Name = "x" }
  }
  expect_failures = [var.machine_tags]
}

run "request_tag_that_is_ours" {
  command = plan
  variables {
    request_tags = ["Garo:runner"]
  }
  expect_failures = [var.request_tags]
}

run "region_that_is_a_zone" {
  command = plan
  variables {
    regions = { eu-west-2a = { subnets = ["subnet-0a"], vpc_id = "vpc-0a" } }
  }
  expect_failures = [var.regions]
}

run "which_region" {
  command = plan
  variables {
    regions = { eu-west-1 = { subnets = ["subnet-0a"], vpc_id = "vpc-0a" }, eu-west-2 = { subnets = ["subnet-0b"], vpc_id = "vpc-0b" } }
  }
  expect_failures = [var.default_region]
}

run "default_region_elsewhere" {
  command = plan
  variables {
    default_region = "eu-west-1"
  }
  expect_failures = [var.default_region]
}

run "instance_type_by_pattern" {
  command = plan
  variables {
    instance_types = ["m7i.*"]
  }
  expect_failures = [var.instance_types]
}

run "image_owner_by_name" {
  command = plan
  variables {
    image_owners = ["canonical"]
  }
  expect_failures = [var.image_owners]
}

run "credential_without_slash" {
  command = plan
  variables {
    github_credential = { parameter = "pat" }
  }
  expect_failures = [var.github_credential]
}

run "app_without_installation" {
  command = plan
  variables {
    github_credential = { app_id = 1 }
  }
  expect_failures = [var.github_credential]
}

run "further_credential_without_slash" {
  command = plan
  variables {
    more_github_credentials = [{ parameter = "pat" }]
  }
  expect_failures = [var.more_github_credentials]
}

run "further_app_without_installation" {
  command = plan
  variables {
    more_github_credentials = [{ parameter = "/github/runner/app", app_id = 1 }]
  }
  expect_failures = [var.more_github_credentials]
}

run "two_credentials_in_one_parameter" {
  command = plan
  variables {
    more_github_credentials = [{ parameter = "/github/runner/pat", app_id = 1, installation_id = 2 }]
  }
  expect_failures = [var.more_github_credentials]
}

run "role_name_with_a_slash" {
  command = plan
  variables {
    role_name = "garo/role"
  }
  expect_failures = [var.role_name]
}

run "policy_by_name" {
  command = plan
  variables {
    instance_profile = { policy_arns = ["ReadOnlyAccess"] }
  }
  expect_failures = [var.instance_profile]
}

run "administrators" {
  command = plan
  variables {
    instance_profile = { policy_arns = ["arn:aws:iam::aws:policy/AdministratorAccess"] }
  }
  expect_failures = [var.instance_profile]
}

run "kms_key_by_alias" {
  command = plan
  variables {
    kms_key_arns = ["alias/ebs"]
  }
  expect_failures = [var.kms_key_arns]
}

run "boundary_by_name" {
  command = plan
  variables {
    permissions_boundary = "Boundary"
  }
  expect_failures = [var.permissions_boundary]
}

run "tag_of_machines" {
  command = plan
  variables {
    tags = { "garo:runner" = "r" }
  }
  expect_failures = [var.tags]
}

run "requirements_of_no_architecture" {
  command = plan
  variables {
    instance_requirements = { vcpus = { max = 8 }, arch = ["amd64"] }
  }
  expect_failures = [var.instance_requirements]
}

run "requirements_without_end" {
  command = plan
  variables {
    instance_requirements = { vcpus = { max = 0 } }
  }
  expect_failures = [var.instance_requirements]
}

run "requirements_of_a_strange_pattern" {
  command = plan
  variables {
    instance_requirements = { vcpus = { max = 8 }, exclude = ["t[34]*"] }
  }
  expect_failures = [var.instance_requirements]
}

run "hops_without_a_profile" {
  command = plan
  variables {
    hop_limit = 2
  }
  expect_failures = [var.hop_limit]
}
