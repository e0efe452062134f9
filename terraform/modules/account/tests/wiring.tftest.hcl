# Names and wiring of a runner account, without AWS. What the role allows and
# refuses is tested in internal/test/terraformtest.
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
  regions     = { eu-west-2 = { vpc_id = "vpc-0a", subnets = ["subnet-0a", "subnet-0b"] } }
}

run "minimal" {
  assert {
    condition     = aws_iam_role.this.name == "GitHubRunnerAssumeRole" && output.registration.role_arn == "arn:aws:iam::111111111111:role/GitHubRunnerAssumeRole"
    error_message = "The role is not the one that a registration without role_arn means."
  }
  assert {
    condition     = output.registration.regions["eu-west-2"].security_groups == tolist(["sg-0000000000000000f"]) && output.registration.default_region == "eu-west-2"
    error_message = "The registration does not name the security group that was made, or no region."
  }
  assert {
    condition     = output.registration.regions["eu-west-2"].instance_profile == null && length(aws_iam_instance_profile.machine) == 0
    error_message = "Machines get rights unasked."
  }
  assert {
    condition     = length(aws_iam_service_linked_role.spot) == 0
    error_message = "The role for spot is made unasked; it would fail where it exists."
  }
  assert {
    condition     = aws_ssm_parameter.github[0].name == "/github/runner/pat" && aws_ssm_parameter.github[0].type == "SecureString" && aws_ssm_parameter.github[0].region == "eu-west-2" && aws_ssm_parameter.github[0].value_wo_version == 1
    error_message = "The credential's parameter is not where the control plane looks for it, or is written again."
  }
  assert {
    condition     = aws_ssm_parameter.github[0].value == "" && aws_ssm_parameter.github[0].value_wo == null
    error_message = "The credential's value is in the state."
  }
  assert {
    condition     = aws_vpc_security_group_egress_rule.ipv4["eu-west-2"].ip_protocol == "-1" && aws_security_group.machine["eu-west-2"].vpc_id == "vpc-0a"
    error_message = "Machines cannot call out."
  }
  assert {
    condition     = output.credential_parameter == { name = "/github/runner/pat", region = "eu-west-2" } && output.registration.more_github == []
    error_message = "The user is not told where to put the credential."
  }
}

# The provider writes a parameter's value with every other change of it, and this
# one's is known to SSM alone.
run "credential_is_left_alone" {
  variables {
    control_plane = {
      name            = "other"
      worker_role_arn = "arn:aws:iam::111111111111:role/garo-worker"
      reaper_role_arn = "arn:aws:iam::111111111111:role/garo-reaper"
    }
  }
  assert {
    condition     = aws_ssm_parameter.github[0].description == "The credential that registers GitHub runners for garo." && aws_ssm_parameter.github[0].tags.ControlPlane == "other"
    error_message = "Terraform writes the credential's parameter again, without its value."
  }
}

run "two_regions" {
  variables {
    default_region = "eu-west-1"
    regions = {
      eu-west-1 = { subnets = ["subnet-0c"], security_groups = ["sg-0c"], images = ["ami-0c", "/images/runner"] }
      eu-west-2 = { vpc_id = "vpc-0a", subnets = ["subnet-0a"], security_groups = ["sg-0a"] }
    }
  }
  assert {
    condition     = keys(aws_security_group.machine) == ["eu-west-2"] && aws_security_group.machine["eu-west-2"].region == "eu-west-2"
    error_message = "A group is made where groups are given, or in another region."
  }
  assert {
    condition     = output.security_groups == { eu-west-1 = tolist(["sg-0c"]), eu-west-2 = tolist(["sg-0000000000000000f", "sg-0a"]) }
    error_message = "Groups that were given are lost."
  }
  assert {
    condition     = aws_ssm_parameter.github[0].region == "eu-west-1" && output.registration.default_region == "eu-west-1"
    error_message = "The credential is not in the default region."
  }
}

run "everything" {
  variables {
    role_name         = "garo-borrow"
    create_spot_role  = true
    instance_profile  = { name = "jobs", policy_arns = ["arn:aws:iam::aws:policy/AmazonSSMManagedInstanceCore"] }
    github_credential = { parameter = "/garo/app", create = false, app_id = 1, installation_id = 2 }
    more_github_credentials = [
      { parameter = "/garo/other", create = false, app_id = 3, installation_id = 4 },
      { parameter = "/garo/pat" },
    ]
    kms_key_arns = ["arn:aws:kms:eu-west-2:111111111111:key/1"]
    tags         = { Team = "build" }
  }
  assert {
    condition     = output.registration.regions["eu-west-2"].instance_profile == "jobs" && aws_iam_instance_profile.machine[0].role == "jobs" && keys(aws_iam_role_policy_attachment.machine) == ["arn:aws:iam::aws:policy/AmazonSSMManagedInstanceCore"]
    error_message = "The instance profile is not made or not registered."
  }
  assert {
    condition     = output.registration.github == { parameter = "/garo/app", app_id = 1, installation_id = 2 } && length(aws_ssm_parameter.github) == 0
    error_message = "The App is not registered, or its parameter is made though it is there."
  }
  assert {
    condition     = [for c in output.registration.more_github : "${c.parameter} ${coalesce(c.app_id, 0)}"] == ["/garo/other 3", "/garo/pat 0"] && keys(aws_ssm_parameter.more_github) == ["/garo/pat"] && output.more_credential_parameters == tolist(["/garo/other", "/garo/pat"])
    error_message = "The further credentials are not registered, or their parameters not made where they are not there."
  }
  assert {
    condition     = aws_iam_service_linked_role.spot[0].aws_service_name == "spot.amazonaws.com" && aws_iam_role.this.name == "garo-borrow"
    error_message = "The roles are not named as asked."
  }
  assert {
    condition     = aws_iam_role.this.tags == tomap({ Service = "garo", ControlPlane = "garo", Team = "build" })
    error_message = "Tags are lost."
  }
}

# China's services have names of their own.
run "another_partition" {
  override_data {
    target = data.aws_partition.current
    values = { partition = "aws-cn", dns_suffix = "amazonaws.com.cn" }
  }
  variables {
    instance_profile = { name = "jobs" }
    kms_key_arns     = ["arn:aws-cn:kms:cn-north-1:111111111111:key/1"]
    regions          = { cn-north-1 = { subnets = ["subnet-0a"], security_groups = ["sg-0a"] } }
  }
  assert {
    condition     = !strcontains(aws_iam_role_policy.this.policy, "arn:aws:") && !can(regex("amazonaws.com\"", aws_iam_role_policy.this.policy))
    error_message = "The role names things or services of another partition."
  }
  assert {
    condition     = strcontains(aws_iam_role.machine[0].assume_role_policy, "\"ec2.amazonaws.com.cn\"")
    error_message = "EC2 cannot take on the machines' role."
  }
}

# KMS has no keys of this partition in the mocked provider, whose ARNs are older.
run "sovereign_cloud" {
  override_data {
    target = data.aws_partition.current
    values = { partition = "aws-eusc", dns_suffix = "amazonaws.eu" }
  }
  variables {
    instance_profile = { name = "jobs" }
    regions          = { eusc-de-east-1 = { subnets = ["subnet-0a"], security_groups = ["sg-0a"] } }
  }
  assert {
    condition     = !strcontains(aws_iam_role_policy.this.policy, "arn:aws:") && strcontains(aws_iam_role_policy.this.policy, "arn:aws-eusc:ec2:eusc-de-east-1:111111111111:instance/*")
    error_message = "The role names things of another partition."
  }
  assert {
    condition     = strcontains(aws_iam_role.machine[0].assume_role_policy, "\"ec2.amazonaws.com\"") && strcontains(aws_iam_role_policy.this.policy, "\"ssm.eusc-de-east-1.amazonaws.eu\"")
    error_message = "EC2 or SSM is not called by its name of this partition."
  }
  assert {
    condition     = output.registration.default_region == "eusc-de-east-1" && output.registration.role_arn == "arn:aws-eusc:iam::111111111111:role/GitHubRunnerAssumeRole"
    error_message = "The registration names another region or partition."
  }
}

run "government_cloud" {
  override_data {
    target = data.aws_partition.current
    values = { partition = "aws-us-gov", dns_suffix = "amazonaws.com" }
  }
  variables {
    kms_key_arns = ["arn:aws-us-gov:kms:us-gov-west-1:111111111111:key/1"]
    regions      = { us-gov-west-1 = { subnets = ["subnet-0a"], security_groups = ["sg-0a"] } }
  }
  assert {
    condition     = !strcontains(aws_iam_role_policy.this.policy, "arn:aws:") && output.registration.role_arn == "arn:aws-us-gov:iam::111111111111:role/GitHubRunnerAssumeRole"
    error_message = "The role or its policy names things of another partition."
  }
  assert {
    condition     = one(values(aws_kms_grant.spot)).grantee_principal == "arn:aws-us-gov:iam::111111111111:role/aws-service-role/spot.amazonaws.com/AWSServiceRoleForEC2Spot"
    error_message = "The grant is for a role of another partition."
  }
}

run "keys_without_spot" {
  variables {
    kms_key_arns    = ["arn:aws:kms:eu-west-2:111111111111:key/1"]
    grant_spot_role = false
  }
  assert {
    condition     = length(aws_kms_grant.spot) == 0 && strcontains(aws_iam_role_policy.this.policy, "kms:CreateGrant")
    error_message = "A role that an account without spot machines may lack is granted a key, or the worker may not use it."
  }
}

run "keys_of_two_regions" {
  variables {
    kms_key_arns = ["arn:aws:kms:eu-west-1:222222222222:key/1", "arn:aws:kms:eu-west-2:111111111111:key/1"]
  }
  assert {
    condition     = { for arn, g in aws_kms_grant.spot : g.key_id => g.region } == { "arn:aws:kms:eu-west-1:222222222222:key/1" = "eu-west-1", "arn:aws:kms:eu-west-2:111111111111:key/1" = "eu-west-2" }
    error_message = "A key is not granted in its own region."
  }
}
