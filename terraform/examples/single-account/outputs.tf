output "url" {
  description = "Address of the API, for the workflow."
  value       = module.control_plane.url
}

output "account" {
  description = "The account's id, as `garo start --account-id` takes it."
  value       = local.account
}

output "credential_parameter" {
  description = "Where the GitHub credential has to be put."
  value       = module.account.credential_parameter
}
