data "aws_caller_identity" "current" {}
data "aws_partition" "current" {}

locals {
  account   = data.aws_caller_identity.current.account_id
  partition = data.aws_partition.current.partition
  # Of services' names. China has its own; all others are called as in the commercial
  # partition, whatever their hosts are called.
  suffix = local.partition == "aws-cn" ? "amazonaws.com.cn" : "amazonaws.com"
  # Of the names that KMS knows services by: these may follow the hosts.
  kms_suffixes = distinct([local.suffix, data.aws_partition.current.dns_suffix])

  default_region = coalesce(var.default_region, keys(var.regions)[0])
  tags           = merge({ Service = "garo", ControlPlane = var.control_plane.name }, var.tags)

  # Known before the role is made: the registration must not wait for the role,
  # which waits for the external id, which waits for the registration.
  role_arn = "arn:${local.partition}:iam::${local.account}:role/${var.role_name}"

  groups = {
    for name, r in var.regions : name =>
    concat(r.vpc_id == null ? [] : [aws_security_group.machine[name].id], r.security_groups)
  }
}

# The network: machines call out, and nobody calls them.
resource "aws_security_group" "machine" {
  #checkov:skip=CKV2_AWS_5: attached to machines by the control plane when it launches them
  for_each = { for name, r in var.regions : name => r if r.vpc_id != null }

  region      = each.key
  name        = "garo-${var.control_plane.name}-machine"
  description = "Machines of GARO call out and nobody calls them."
  vpc_id      = each.value.vpc_id
  tags        = local.tags
}

# Jobs fetch from hosts that nobody can list beforehand; give security_groups of
# yours to narrow it.
resource "aws_vpc_security_group_egress_rule" "ipv4" {
  for_each = aws_security_group.machine

  region            = each.key
  security_group_id = each.value.id
  description       = "Out, to anywhere."
  ip_protocol       = "-1"
  cidr_ipv4         = "0.0.0.0/0"
  tags              = local.tags
}

resource "aws_vpc_security_group_egress_rule" "ipv6" {
  for_each = aws_security_group.machine

  region            = each.key
  security_group_id = each.value.id
  description       = "Out, to anywhere."
  ip_protocol       = "-1"
  cidr_ipv6         = "::/0"
  tags              = local.tags
}

# What registers runners at GitHub. Terraform writes a text that GitHub refuses,
# once, and never reads it again: put the credential in with
#   aws ssm put-parameter --overwrite --type SecureString --name PARAMETER --value "$TOKEN"
resource "aws_ssm_parameter" "github" {
  #checkov:skip=CKV_AWS_337: the account's own key for SSM, which every account has; put a parameter under a key of yours yourself with create = false
  count = var.github_credential.create ? 1 : 0

  region           = local.default_region
  name             = var.github_credential.parameter
  description      = "The credential that registers GitHub runners for ${var.control_plane.name}."
  type             = "SecureString"
  value_wo         = "put the credential here"
  value_wo_version = 1
  tags             = local.tags

  # The provider writes the value whenever any of these changes, and it has none.
  lifecycle {
    ignore_changes = [description, key_id, tier, type, value_wo_version]
  }
}

resource "aws_ssm_parameter" "more_github" {
  #checkov:skip=CKV_AWS_337: the account's own key for SSM, which every account has; put a parameter under a key of yours yourself with create = false
  for_each = toset([for c in var.more_github_credentials : c.parameter if c.create])

  region           = local.default_region
  name             = each.key
  description      = "A further credential that registers GitHub runners for ${var.control_plane.name}."
  type             = "SecureString"
  value_wo         = "put the credential here"
  value_wo_version = 1
  tags             = local.tags

  lifecycle {
    ignore_changes = [description, key_id, tier, type, value_wo_version]
  }
}

resource "aws_iam_service_linked_role" "spot" {
  count = var.create_spot_role ? 1 : 0

  aws_service_name = "spot.amazonaws.com"
  tags             = local.tags
}

# Spot machines are launched by EC2's own role, which has no right on keys of yours:
# without a grant, a machine whose volume is under such a key ends as it begins, with
# Client.InternalError. The operations are those that AWS names for it
# (https://docs.aws.amazon.com/AWSEC2/latest/UserGuide/service-linked-roles-spot-instance-requests.html).
resource "aws_kms_grant" "spot" {
  for_each = toset(var.grant_spot_role ? var.kms_key_arns : [])

  region            = split(":", each.key)[3]
  name              = "garo-${var.control_plane.name}-spot"
  key_id            = each.key
  grantee_principal = "arn:${local.partition}:iam::${local.account}:role/aws-service-role/spot.amazonaws.com/AWSServiceRoleForEC2Spot"
  operations = [
    "CreateGrant", "Decrypt", "DescribeKey", "Encrypt", "GenerateDataKey", "GenerateDataKeyWithoutPlaintext",
    "ReEncryptFrom", "ReEncryptTo",
  ]

  # KMS grants nothing to a role that is not there.
  depends_on = [aws_iam_service_linked_role.spot]
}

# What jobs may do in AWS: nothing, unless policies are given.
resource "aws_iam_role" "machine" {
  count = var.instance_profile == null ? 0 : 1

  name                 = var.instance_profile.name
  description          = "What jobs on machines of ${var.control_plane.name} may do."
  permissions_boundary = var.permissions_boundary
  tags                 = local.tags
  assume_role_policy = jsonencode({
    Version = "2012-10-17"
    Statement = [{
      Effect    = "Allow"
      Action    = "sts:AssumeRole"
      Principal = { Service = "ec2.${local.suffix}" }
    }]
  })
}

resource "aws_iam_role_policy_attachment" "machine" {
  for_each = toset(try(var.instance_profile.policy_arns, []))

  role       = aws_iam_role.machine[0].name
  policy_arn = each.key
}

resource "aws_iam_instance_profile" "machine" {
  count = var.instance_profile == null ? 0 : 1

  name = var.instance_profile.name
  role = aws_iam_role.machine[0].name
  tags = local.tags
}
