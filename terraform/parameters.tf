locals {
  parameters = coalesce(var.parameters, "/${var.name}")

  # A registration as package store reads it. What is not set is left out.
  registrations = {
    for id, a in var.accounts : id => {
      for field, value in merge(a, {
        id                     = id
        role_arn               = local.roles[id]
        external_id            = random_password.external_id[id].result
        default_instance_types = a.default_instance_types != null ? a.default_instance_types : a.instance_types
        allow                  = { for field, value in a.allow : field => value if value != null }
        runs_on                = a.runs_on == null ? null : [for o in a.runs_on : { for field, value in o : field => value if value != null }]
        webhook_secrets        = lookup(var.webhook_secrets, id, null)
        more_github            = null
        },
        # One credential is an object, as every version reads it; several are a list.
        { for field, several in { github = concat([a.github], a.more_github) } : field => several if length(several) > 1 },
      ) : field => value if value != null
    }
  }

  # A script in base64 and in parts, each within the 4 KB of a standard parameter: SSM
  # takes no {{ in a value, which scripts may have.
  setup_parts = merge([for name, script in var.setup_scripts : {
    for i in range(ceil(length(base64encode(script)) / 4000)) : format("%s/%02d", name, i) => substr(base64encode(script), i * 4000, 4000)
  }]...)

  keys = length(var.key_ids) == 0 ? null : jsonencode({
    id      = random_password.id_key[0].result
    current = var.key_ids[0]
    keys    = { for k in var.key_ids : k => random_password.key[k].result }
  })
}

# What the trust policy of an account's role asks for, so that nobody else can
# make us use it. No caller can name it.
resource "random_password" "external_id" {
  for_each = toset(keys(var.accounts))
  length   = 32
  special  = false
}

# The value holds the external id, which is in the state as it is: a plain value
# shows Terraform when somebody changed the registration by hand.
resource "aws_ssm_parameter" "account" {
  for_each = var.accounts

  name        = "${local.parameters}/accounts/${each.key}"
  description = "Registration of account ${each.key} at the control plane ${var.name}."
  type        = "SecureString"
  tier        = "Intelligent-Tiering" # a long list of repositories does not fit into 4 KB
  key_id      = var.kms_key_arn
  value       = jsonencode(local.registrations[each.key])
  tags        = local.tags
}

# Registrations name a script by its path and its SHA-256, which are outputs.
resource "aws_ssm_parameter" "setup" {
  for_each = local.setup_parts

  name        = "${local.parameters}/setup/${each.key}"
  description = "Part of a set-up script of machines."
  type        = "SecureString"
  key_id      = var.kms_key_arn
  value       = each.value
  tags        = local.tags
}

resource "aws_ssm_parameter" "operators" {
  name        = "${local.parameters}/operators"
  description = "SHA-256 of operators' tokens, by name."
  type        = "SecureString"
  tier        = "Intelligent-Tiering"
  key_id      = var.kms_key_arn
  value       = jsonencode(var.operators)
  tags        = local.tags
}

# 48 of 62 characters: 285 bits, above the 256 of the HMAC that they key.
# The id key makes the ids of requests and the runners' own labels; it opens
# nothing, and is never rotated.
resource "random_password" "id_key" {
  count   = length(var.key_ids) == 0 ? 0 : 1
  length  = 48
  special = false
}

resource "random_password" "key" {
  for_each = toset(var.key_ids)
  length   = 48
  special  = false
}

# Write-only: it is read by the functions alone, and not back into the state. The
# version is a number that changes when the list of keys does, or the KMS key: the
# provider writes the value again for either, and has it only with a new version.
resource "aws_ssm_parameter" "keys" {
  count = length(var.key_ids) == 0 ? 0 : 1

  name             = "${local.parameters}/keys"
  description      = "Keys of the control plane ${var.name}. Change them by the variable key_ids."
  type             = "SecureString"
  key_id           = var.kms_key_arn
  value_wo         = local.keys
  value_wo_version = parseint(substr(sha256(jsonencode([var.key_ids, var.kms_key_arn])), 0, 7), 16)
  tags             = local.tags

  lifecycle {
    ignore_changes = [description, tier, type]
  }
}
