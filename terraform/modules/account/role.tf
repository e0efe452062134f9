# The role that worker and reaper of one control plane borrow. Each may do its own
# part only: the name of its session is tied to its role by the trust policy, and
# the rights to the name of the session. Their session policies narrow it again.
locals {
  session     = "garo-${var.control_plane.name}"
  regions     = sort(keys(var.regions))
  ec2         = [for r in local.regions : "arn:${local.partition}:ec2:${r}:${local.account}"]
  profile_arn = try("arn:${local.partition}:iam::${local.account}:instance-profile/${var.instance_profile.name}", null)

  paths = distinct(flatten([for name, r in var.regions : [
    for i in r.images : startswith(i, "/aws/") ? "arn:${local.partition}:ssm:${name}::parameter${i}" : "arn:${local.partition}:ssm:${name}:${local.account}:parameter${i}"
    if startswith(i, "/")
  ]]))
  credentials = [
    for p in concat([var.github_credential.parameter], var.more_github_credentials[*].parameter) :
    "arn:${local.partition}:ssm:${local.default_region}:${local.account}:parameter${p}"
  ]

  # aws:userid of a session is ROLEID:SESSION.
  by = { for part in ["worker", "reaper"] : part => { StringLike = { "aws:userid" = "*:${local.session}-${part}" } } }

  via_ec2 = flatten([for suffix in local.kms_suffixes : [for r in local.regions : "ec2.${r}.${suffix}"]])

  # The largest root volume that may be asked for, by a region or by a request. Without
  # one, a volume is as large as its image, which the owners of images bound.
  volumes_gb = concat([for r in var.regions : r.root_volume.size_gb if try(r.root_volume.size_gb, null) != null], var.max_root_volume_gb == null ? [] : [var.max_root_volume_gb])
  largest    = length(local.volumes_gb) == 0 ? null : max(local.volumes_gb...)

  tag_keys = sort(distinct(concat(keys(var.machine_tags), var.request_tags)))

  # A reservation can be another account's that shares it.
  reservations = distinct(flatten([for name, r in var.regions : [
    for c in [coalesce(r.capacity_reservation, "none")] : startswith(c, "cr-") ? "arn:${local.partition}:ec2:${name}:*:capacity-reservation/${c}" : c
    if !contains(["open", "none"], c)
  ]]))

  # A metal type by the rules would be of no use: it is not chosen.
  launchable = {
    LaunchMachine       = { allowed = true, is = { "ec2:InstanceType" = var.instance_types }, is_not = {} }
    LaunchByRequirement = { allowed = var.instance_requirements != null, is = {}, is_not = { StringNotLike = { "ec2:InstanceType" = concat(["*.metal*"], coalesce(try(var.instance_requirements.exclude, null), [])) } } }
  }

  ours = { "aws:RequestTag/garo:control-plane" = var.control_plane.name }

  statements = concat(
    [
      # A launch has to be allowed for each thing that it takes or makes.
      {
        Sid       = "LaunchInto"
        Effect    = "Allow"
        Action    = "ec2:RunInstances"
        Condition = local.by.worker
        Resource = flatten([for name, r in var.regions : concat(
          # Anyone who shares a subnet with this account owns it; ids are unique anyway.
          [for s in r.subnets : "arn:${local.partition}:ec2:${name}:*:subnet/${s}"],
          [for g in local.groups[name] : "arn:${local.partition}:ec2:${name}:*:security-group/${g}"],
        )])
      },
      # The owner is the alias where an image has one: see var.image_owners.
      {
        Sid       = "LaunchFrom"
        Effect    = "Allow"
        Action    = "ec2:RunInstances"
        Condition = merge(local.by.worker, { StringEquals = { "ec2:Owner" = var.image_owners != null ? var.image_owners : ["amazon", local.account] } })
        Resource  = [for r in local.regions : "arn:${local.partition}:ec2:${r}::image/*"]
      },
      {
        Sid       = "LaunchVolume"
        Effect    = "Allow"
        Action    = "ec2:RunInstances"
        Condition = merge(local.by.worker, { StringEquals = local.ours }, local.largest == null ? {} : { NumericLessThanEqualsIfExists = { "ec2:VolumeSize" = tostring(local.largest) } })
        Resource  = [for e in local.ec2 : "${e}:volume/*"]
      },
      # Which subnet and groups it is in is said above, and what a spot request
      # launches too.
      {
        Sid       = "LaunchInterface"
        Effect    = "Allow"
        Action    = "ec2:RunInstances"
        Condition = local.by.worker
        Resource  = flatten([for e in local.ec2 : ["${e}:network-interface/*", "${e}:spot-instances-request/*"]])
      },
      {
        Sid    = "TagAtLaunch"
        Effect = "Allow"
        Action = "ec2:CreateTags"
        Condition = merge(local.by.worker, {
          StringEquals              = merge(local.ours, { "ec2:CreateAction" = "RunInstances" })
          "ForAllValues:StringLike" = { "aws:TagKeys" = concat(["Name", "garo:*"], local.tag_keys) }
        })
        Resource = flatten([for e in local.ec2 : concat(["${e}:instance/*", "${e}:volume/*"], length(local.tag_keys) == 0 ? [] : ["${e}:network-interface/*"])])
      },
      # EC2 knows no resource for this one.
      {
        Sid       = "See"
        Effect    = "Allow"
        Action    = "ec2:DescribeInstances"
        Condition = { StringEquals = { "aws:RequestedRegion" = local.regions } }
        Resource  = "*"
      },
      # What spot machines cost in the zones of the subnets: EC2 knows no resources here either.
      {
        Sid       = "Prices"
        Effect    = "Allow"
        Action    = ["ec2:DescribeSpotPriceHistory", "ec2:DescribeSubnets"]
        Condition = merge(local.by.reaper, { StringEquals = { "aws:RequestedRegion" = local.regions } })
        Resource  = "*"
      },
      # What a machine printed that did not boot: in its error, and for operators.
      {
        Sid       = "Console"
        Effect    = "Allow"
        Action    = "ec2:GetConsoleOutput"
        Condition = { StringEquals = { "aws:ResourceTag/garo:control-plane" = var.control_plane.name } }
        Resource  = [for e in local.ec2 : "${e}:instance/*"]
      },
      {
        Sid       = "End"
        Effect    = "Allow"
        Action    = "ec2:TerminateInstances"
        Condition = merge(local.by.reaper, { StringEquals = { "aws:ResourceTag/garo:control-plane" = var.control_plane.name } })
        Resource  = [for e in local.ec2 : "${e}:instance/*"]
      },
      {
        Sid      = "Credential"
        Effect   = "Allow"
        Action   = "ssm:GetParameter"
        Resource = local.credentials
      },
      {
        Sid    = "CredentialKey"
        Effect = "Allow"
        Action = "kms:Decrypt"
        Condition = { StringEquals = {
          "kms:ViaService"                      = [for suffix in local.kms_suffixes : "ssm.${local.default_region}.${suffix}"]
          "kms:EncryptionContext:PARAMETER_ARN" = local.credentials
        } }
        Resource = "arn:${local.partition}:kms:${local.default_region}:${local.account}:key/*"
      },
    ],
    # A machine is of a type that is named, or of one that the rules choose: those cannot
    # be told to IAM, but for what they leave out.
    [for sid, type in local.launchable : {
      Sid    = sid
      Effect = "Allow"
      Action = "ec2:RunInstances"
      Condition = merge(local.by.worker, {
        StringEquals  = merge(local.ours, { "ec2:MetadataHttpTokens" = "required" }, type.is)
        NumericEquals = { "ec2:MetadataHttpPutResponseHopLimit" = var.hop_limit == 1 ? ["1"] : ["1", "2"] }
      }, type.is_not, local.profile_arn == null ? { Null = { "ec2:InstanceProfile" = "true" } } : { ArnEquals = { "ec2:InstanceProfile" = local.profile_arn } })
      Resource = [for e in local.ec2 : "${e}:instance/*"]
    } if type.allowed],
    # Which instance types a region offers. EC2 knows no resource for these either.
    [for rules in [var.instance_requirements] : {
      Sid       = "LookAtTypes"
      Effect    = "Allow"
      Action    = "ec2:DescribeInstanceTypes"
      Condition = merge(local.by.worker, { StringEquals = { "aws:RequestedRegion" = local.regions } })
      Resource  = "*"
    } if rules != null],
    # What an image calls its root volume and how large that is, and what garo doctor looks
    # at. EC2 knows no resource for these either.
    [{
      Sid       = "LookAt"
      Effect    = "Allow"
      Action    = ["ec2:DescribeImages", "ec2:DescribeRouteTables", "ec2:DescribeSubnets"]
      Condition = merge(local.by.worker, { StringEquals = { "aws:RequestedRegion" = local.regions } })
      Resource  = "*"
    }],
    [for reservations in [local.reservations] : {
      Sid       = "LaunchReserved"
      Effect    = "Allow"
      Action    = "ec2:RunInstances"
      Condition = local.by.worker
      Resource  = reservations
    } if length(reservations) > 0],
    [for paths in [local.paths] : {
      Sid       = "ImagePath"
      Effect    = "Allow"
      Action    = "ssm:GetParameter"
      Condition = local.by.worker
      Resource  = paths
    } if length(paths) > 0],
    [for profile in [var.instance_profile] : {
      Sid       = "Profile"
      Effect    = "Allow"
      Action    = "iam:PassRole"
      Condition = merge(local.by.worker, { StringEquals = { "iam:PassedToService" = "ec2.${local.suffix}" } })
      Resource  = "arn:${local.partition}:iam::${local.account}:role/${profile.name}"
    } if profile != null],
    [for keys in [var.kms_key_arns] : {
      Sid       = "VolumeKeys"
      Effect    = "Allow"
      Action    = ["kms:Decrypt", "kms:DescribeKey", "kms:GenerateDataKeyWithoutPlaintext", "kms:ReEncryptFrom", "kms:ReEncryptTo"]
      Condition = merge(local.by.worker, { StringEquals = { "kms:ViaService" = local.via_ec2 } })
      Resource  = keys
    } if length(keys) > 0],
    [for keys in [var.kms_key_arns] : {
      Sid    = "VolumeGrants"
      Effect = "Allow"
      Action = "kms:CreateGrant"
      Condition = merge(local.by.worker, {
        StringEquals = { "kms:ViaService" = local.via_ec2 }
        Bool         = { "kms:GrantIsForAWSResource" = "true" }
      })
      Resource = keys
    } if length(keys) > 0],
  )
}

resource "aws_iam_role" "this" {
  name                 = var.role_name
  description          = "What the control plane ${var.control_plane.name} may do here: launch machines and end them."
  max_session_duration = 3600 # a role that another role borrows gets no more
  permissions_boundary = var.permissions_boundary
  tags                 = local.tags

  assume_role_policy = jsonencode({
    Version = "2012-10-17"
    Statement = concat(
      [for part, arn in { Worker = var.control_plane.worker_role_arn, Reaper = var.control_plane.reaper_role_arn } : {
        Sid                      = part
        Effect                   = "Allow"
        Action                   = "sts:AssumeRole"
        Principal                = { AWS = arn }
        Condition = { StringEquals = {
          "sts:ExternalId"      = var.external_id
          "sts:SourceIdentity"  = local.session
          "sts:RoleSessionName" = "${local.session}-${lower(part)}"
        } }
      }],
      [{
        Sid       = "Identity"
        Effect    = "Allow"
        Action    = "sts:SetSourceIdentity"
        Principal = { AWS = [var.control_plane.worker_role_arn, var.control_plane.reaper_role_arn] }
        Condition = { StringEquals = { "sts:SourceIdentity" = local.session } }
      }],
    )
  })
}

resource "aws_iam_role_policy" "this" {
  name   = "garo"
  role   = aws_iam_role.this.name
  policy = jsonencode({ Version = "2012-10-17", Statement = local.statements })
}
