data "aws_partition" "current" {}
data "aws_region" "current" {}

locals {
  partition = data.aws_partition.current.partition
  region    = data.aws_region.current.region

  # Each image that is built, and what differs between them. x.x.x is the newest of
  # Amazon's images, which Image Builder resolves at each run
  # (https://docs.aws.amazon.com/imagebuilder/latest/userguide/ibhow-semantic-versioning.html).
  parents = {
    al2023         = { amd64 = "amazon-linux-2023-x86", arm64 = "amazon-linux-2023-arm64", root = "/dev/xvda" }
    "ubuntu-24.04" = { amd64 = "ubuntu-server-24-lts-x86", arm64 = "ubuntu-server-24-lts-arm64", root = "/dev/sda1" }
  }
  builders = { amd64 = "m7i.large", arm64 = "m7g.large" } # minutes of a machine that is no bottleneck

  images = merge([for os, archs in var.images : {
    for arch in archs : "${os}-${arch}" => {
      os       = os
      arch     = arch
      id       = "${var.name}-${replace(os, ".", "-")}-${arch}"
      document = local.documents[os][arch]
    }
  }]...)

  # The script is in the component in base64: Image Builder reads double braces as its own.
  # It finds the newest runner program on its own, so that the recipe stays the same and its
  # images are one series, of which old ones are deleted.
  documents = { for os, archs in var.images : os => { for arch in archs : arch => yamlencode({
    schemaVersion = "1.0"
    phases = [{
      name = "build"
      steps = [{
        name   = "Install"
        action = "ExecuteBash"
        inputs = { commands = [join("\n", [
          "base64 -d >/tmp/garo-install.sh <<'SCRIPT'",
          filebase64("${path.module}/install.sh"),
          "SCRIPT",
          join(" ", [
            "AGENT_URL='${try(var.agents[arch].url, "")}'",
            "AGENT_SHA256='${try(var.agents[arch].sha256, "")}'",
            "EXTRA_PACKAGES='${join(" ", try(var.extra_packages[os], []))}'",
            "bash /tmp/garo-install.sh",
          ]),
          "rm -f /tmp/garo-install.sh",
        ])] }
      }]
    }]
  }) } }
}

# What Image Builder's machine may do: its own agent's work, and nothing of GARO's.
resource "aws_iam_role" "build" {
  name        = "${var.name}-image-build"
  description = "The machines that build GARO's images."
  tags        = var.tags
  assume_role_policy = jsonencode({
    Version   = "2012-10-17"
    Statement = [{ Effect = "Allow", Action = "sts:AssumeRole", Principal = { Service = "ec2.amazonaws.com" } }]
  })
}

resource "aws_iam_role_policy_attachment" "build" {
  for_each = toset(["EC2InstanceProfileForImageBuilder", "AmazonSSMManagedInstanceCore"])

  role       = aws_iam_role.build.name
  policy_arn = "arn:${local.partition}:iam::aws:policy/${each.key}"
}

resource "aws_iam_instance_profile" "build" {
  name = aws_iam_role.build.name
  role = aws_iam_role.build.name
  tags = var.tags
}

# What deletes old images.
resource "aws_iam_role" "lifecycle" {
  name        = "${var.name}-image-lifecycle"
  description = "Deletes old images of GARO's machines, and their snapshots."
  tags        = var.tags
  assume_role_policy = jsonencode({
    Version   = "2012-10-17"
    Statement = [{ Effect = "Allow", Action = "sts:AssumeRole", Principal = { Service = "imagebuilder.amazonaws.com" } }]
  })
}

resource "aws_iam_role_policy_attachment" "lifecycle" {
  role       = aws_iam_role.lifecycle.name
  policy_arn = "arn:${local.partition}:iam::aws:policy/service-role/EC2ImageBuilderLifecycleExecutionPolicy"
}

# A component and a recipe are never changed, only replaced: their names have the hash of
# what is in them.
resource "aws_imagebuilder_component" "this" {
  #checkov:skip=CKV_AWS_180: it has install.sh and no secret; Image Builder encrypts it with a key that AWS owns
  for_each = local.images

  name     = "${each.value.id}-${substr(sha256(each.value.document), 0, 8)}"
  platform = "Linux"
  version  = "1.0.0"
  data     = each.value.document
  tags     = var.tags

  lifecycle {
    create_before_destroy = true
  }
}

resource "aws_imagebuilder_image_recipe" "this" {
  for_each = local.images

  name         = "${each.value.id}-${substr(sha256(join(" ", [each.value.document, var.size_gb, coalesce(var.kms_key_arn, "none")])), 0, 8)}"
  version      = "1.0.0"
  parent_image = "arn:${local.partition}:imagebuilder:${local.region}:aws:image/${local.parents[each.value.os][each.value.arch]}/x.x.x"
  tags         = var.tags
  ami_tags     = merge(var.tags, { Name = each.value.id })

  component {
    component_arn = aws_imagebuilder_component.this[each.key].arn
  }

  block_device_mapping {
    device_name = local.parents[each.value.os].root
    ebs {
      volume_size           = var.size_gb
      volume_type           = "gp3"
      encrypted             = true
      kms_key_id            = var.kms_key_arn
      delete_on_termination = true
    }
  }

  lifecycle {
    create_before_destroy = true
  }
}

resource "aws_imagebuilder_infrastructure_configuration" "this" {
  for_each = local.images

  name                          = each.value.id
  instance_profile_name         = aws_iam_instance_profile.build.name
  instance_types                = [local.builders[each.value.arch]]
  subnet_id                     = var.subnet_id
  security_group_ids            = length(var.security_group_ids) > 0 ? var.security_group_ids : null
  terminate_instance_on_failure = true
  tags                          = var.tags
  resource_tags                 = var.tags

  instance_metadata_options {
    http_tokens                 = "required"
    http_put_response_hop_limit = 1
  }
}

# The newest image's id goes into a parameter, which a registration names.
resource "aws_imagebuilder_distribution_configuration" "this" {
  for_each = local.images

  name = each.value.id
  tags = var.tags

  distribution {
    region = local.region

    ami_distribution_configuration {
      name       = "${each.value.id}-{{ imagebuilder:buildDate }}"
      ami_tags   = merge(var.tags, { Name = each.value.id })
      kms_key_id = var.kms_key_arn
    }

    ssm_parameter_configuration {
      parameter_name = "/${var.name}/images/${each.value.os}/${each.value.arch}"
      data_type      = "aws:ec2:image"
    }
  }
}

resource "aws_imagebuilder_image_pipeline" "this" {
  for_each = local.images

  name                             = each.value.id
  image_recipe_arn                 = aws_imagebuilder_image_recipe.this[each.key].arn
  infrastructure_configuration_arn = aws_imagebuilder_infrastructure_configuration.this[each.key].arn
  distribution_configuration_arn   = aws_imagebuilder_distribution_configuration.this[each.key].arn
  tags                             = var.tags

  # Each week, whatever is new: the packages of a distribution have no event.
  schedule {
    schedule_expression                = var.schedule
    pipeline_execution_start_condition = "EXPRESSION_MATCH_ONLY"
  }

  image_tests_configuration {
    image_tests_enabled = false # the first job is the test, and the image before is kept
  }
}

resource "aws_imagebuilder_lifecycle_policy" "this" {
  for_each = local.images

  name           = each.value.id
  execution_role = aws_iam_role.lifecycle.arn
  resource_type  = "AMI_IMAGE"
  tags           = var.tags

  policy_detail {
    action {
      type = "DELETE"
      include_resources {
        amis      = true
        snapshots = true
      }
    }
    filter {
      type  = "COUNT"
      value = var.keep
    }
  }

  resource_selection {
    recipe {
      name             = aws_imagebuilder_image_recipe.this[each.key].name
      semantic_version = "1.0.0"
    }
  }

  depends_on = [aws_iam_role_policy_attachment.lifecycle]
}
