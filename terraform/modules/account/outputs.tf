output "registration" {
  description = "What the control plane's variable `accounts` has to hold for this account; merge into it who is served: `merge(module.account.registration, { owners = [...] })`."
  value = {
    role_arn       = local.role_arn
    default_region = local.default_region
    instance_types = var.instance_types
    regions = { for name, r in var.regions : name => {
      subnets              = r.subnets
      security_groups      = local.groups[name]
      images               = r.images
      instance_profile     = try(var.instance_profile.name, null)
      root_volume          = r.root_volume
      associate_public_ip  = r.associate_public_ip
      capacity_reservation = r.capacity_reservation
    } }
    instance_requirements = var.instance_requirements
    hop_limit             = var.hop_limit == 1 ? null : var.hop_limit
    max_root_volume_gb    = var.max_root_volume_gb
    tags                  = var.machine_tags
    request_tags          = var.request_tags
    github = {
      parameter       = var.github_credential.parameter
      app_id          = var.github_credential.app_id
      installation_id = var.github_credential.installation_id
    }
    more_github = [for c in var.more_github_credentials : { parameter = c.parameter, app_id = c.app_id, installation_id = c.installation_id }]
  }
}

output "role_arn" {
  description = "ARN of the role that the control plane borrows."
  value       = aws_iam_role.this.arn
}

output "security_groups" {
  description = "Ids of the security groups of machines, by region, yours among them."
  value       = local.groups
}

output "credential_parameter" {
  description = "Where the GitHub credential has to be put, and in which region."
  value       = { name = var.github_credential.parameter, region = local.default_region }
}

output "more_credential_parameters" {
  description = "Where the further GitHub credentials have to be put, in the same region."
  value       = var.more_github_credentials[*].parameter
}
