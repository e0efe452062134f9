variable "region" {
  description = "Region of control plane and machines."
  type        = string
  default     = "eu-west-2"
}

variable "owner" {
  description = "The GitHub organisation or user whose repositories are served: id and name, from `gh api users/NAME --jq '.id, .login'`."
  type        = object({ id = string, name = string })
}

variable "github_credential" {
  description = "What registers runners: by default a token that you put into a parameter. For a GitHub App, what `garo app create` prints, with `create = false`."
  type = object({
    parameter       = optional(string, "/github/runner/pat")
    create          = optional(bool, true)
    app_id          = optional(number)
    installation_id = optional(number)
  })
  default = {}
}

variable "more_github_credentials" {
  description = "Further credentials of the same rights, for more registrations a minute: docs/deploy.md says when they help."
  type = list(object({
    parameter       = string
    create          = optional(bool, true)
    app_id          = optional(number)
    installation_id = optional(number)
  }))
  default = []
}

variable "registration" {
  description = "Further fields of the registration, such as `runs_on`."
  type        = any
  default     = {}
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

variable "operators" {
  description = "SHA-256 of operators' tokens, by name."
  type        = map(string)
  default     = {}
}

variable "key_ids" {
  description = "Ids of the control plane's keys, the current one first."
  type        = list(string)
  default     = ["k1"]
}

variable "table" {
  description = "Name of the table, if it is another than the control plane's."
  type        = string
  default     = null
}

variable "alarm_emails" {
  description = "Who gets the alarms."
  type        = list(string)
  default     = []
}

variable "deletion_protection" {
  description = "Set it to false, and apply, before `terraform destroy`."
  type        = bool
  default     = true
}

variable "runner_programs" {
  description = "GitHub's runner program, which the stock image does not have."
  type        = map(object({ version = string, url = string, sha256 = string }))
  default     = {}
}
