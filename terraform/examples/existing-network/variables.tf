variable "region" {
  description = "Region of control plane and machines."
  type        = string
  default     = "eu-west-2"
}

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

variable "vpc_name" {
  description = "Tag Name of the VPC."
  type        = string
}

variable "subnet_tags" {
  description = "Tags of the subnets that machines may be in."
  type        = map(string)
  default     = { Tier = "private" }
}

variable "security_groups" {
  description = "Security groups of the machines."
  type        = list(string)
}

variable "image" {
  description = "Path of the SSM parameter with the AMI."
  type        = string
  default     = "/images/runner/arm64"
}

variable "kms_key_arn" {
  description = "KMS key for what the control plane keeps."
  type        = string
}

variable "domain" {
  description = "Domain name of the API, its certificate and its Route 53 zone."
  type        = object({ name = string, certificate_arn = string, zone_id = string })
}

variable "owner" {
  description = "The GitHub organisation that is served."
  type        = object({ id = string, name = string })
}

variable "app" {
  description = "The GitHub App that registers runners."
  type        = object({ app_id = number, installation_id = number })
}
