variable "package" {
  description = "Where the functions' zips are; by default what `make build` made."
  type = object({
    directory = optional(string)
    s3_bucket = optional(string)
    s3_prefix = optional(string)
    sha256    = optional(map(string))
  })
  default = { directory = "../../../bin" }
}

variable "accounts" {
  description = "Ids of the accounts `build` and `deploy`, whose role `deployer_role` Terraform takes on."
  type        = object({ build = string, deploy = string })
}

variable "deployer_role" {
  description = "Name of the role that Terraform takes on in either account."
  type        = string
  default     = "OrganizationAccountAccessRole"
}

variable "networks" {
  description = "VPC and subnets of the machines, by account."
  type = object({
    build  = object({ vpc_id = string, subnets = list(string) })
    deploy = object({ vpc_id = string, subnets = list(string) })
  })
}

variable "owner" {
  description = "The organisation whose repositories are served in `build`."
  type        = object({ id = string, name = string })
}

variable "deploy_repository" {
  description = "The one repository that is served in `deploy`."
  type        = object({ id = string, name = string })
}
