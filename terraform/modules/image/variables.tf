variable "name" {
  description = "Begins the names of everything, and of the parameter: /NAME/images/OS/ARCHITECTURE."
  type        = string
  default     = "garo"

  validation {
    condition     = can(regex("^[a-z][a-z0-9-]{0,30}$", var.name))
    error_message = "Begin name with a letter, and give it at most 31 of a-z, 0-9 and hyphen."
  }
}

variable "images" {
  description = "Which images are built: al2023 (Amazon Linux 2023) and ubuntu-24.04, each for amd64, arm64 or both."
  type        = map(set(string))
  default     = { al2023 = ["arm64", "amd64"] }

  validation {
    condition     = length(var.images) > 0 && alltrue([for os, archs in var.images : contains(["al2023", "ubuntu-24.04"], os) && length(archs) > 0 && length(setsubtract(archs, ["amd64", "arm64"])) == 0])
    error_message = "List in images some of al2023 and ubuntu-24.04, each with amd64, arm64 or both."
  }
}

variable "agents" {
  description = "GARO's agent by architecture: where the API serves it, URL/agent/linux/ARCH/SHA256, and that hash. Without it, machines fetch it at each start, 3 MB. Another hash makes another series of images."
  type        = map(object({ url = string, sha256 = string }))
  default     = {}

  validation {
    condition     = alltrue([for a in var.agents : startswith(a.url, "https://") && can(regex("^[0-9a-f]{64}$", a.sha256))])
    error_message = "Give each of agents the https URL at which the API serves it, and its SHA-256."
  }
}

variable "extra_packages" {
  description = "More packages, by the distribution's names."
  type        = map(list(string))
  default     = {}

  validation {
    condition     = alltrue(flatten([for names in var.extra_packages : [for n in names : can(regex("^[A-Za-z0-9][A-Za-z0-9.+_-]*$", n))]]))
    error_message = "Name packages in extra_packages by al2023 and ubuntu-24.04, such as { al2023 = [\"nodejs\"] }."
  }
}

variable "size_gb" {
  description = "The size of the image's root volume, in GiB."
  type        = number
  default     = 16

  validation {
    condition     = var.size_gb >= 8 && floor(var.size_gb) == var.size_gb
    error_message = "Set size_gb to at least 8, a whole number."
  }
}

variable "keep" {
  description = "How many images of each kind are kept, with their snapshots; older ones are deleted. A launch that was planned with one of them is tried again with the newest."
  type        = number
  default     = 3

  validation {
    condition     = var.keep >= 2 && var.keep <= 1000 && floor(var.keep) == var.keep
    error_message = "Set keep to 2 or more: machines are launched from an image for some minutes after the next one is there."
  }
}

variable "schedule" {
  description = "When images are built, with the newest runner program, base image and packages: a cron expression of Image Builder, in UTC."
  type        = string
  default     = "cron(0 3 ? * sun *)"

  validation {
    condition     = can(regex("^cron\\(.+\\)$", var.schedule))
    error_message = "Give schedule as cron(MINUTES HOURS DAY MONTH WEEKDAY YEAR)."
  }
}

variable "subnet_id" {
  description = "The subnet to build in, with a way to the package mirrors, GitHub and SSM. Null: the default VPC's."
  type        = string
  default     = null
}

variable "security_group_ids" {
  description = "The groups of the machine that builds; needed with subnet_id."
  type        = set(string)
  default     = []

  validation {
    condition     = var.subnet_id == null || length(var.security_group_ids) > 0
    error_message = "Name security_group_ids too if you name a subnet_id."
  }
}

variable "kms_key_arn" {
  description = "ARN of a KMS key for the images' volumes. Null: the account's default. modules/account has to name it in kms_key_arns."
  type        = string
  default     = null
}

variable "tags" {
  description = "Tags of everything, the images included."
  type        = map(string)
  default     = {}
}
