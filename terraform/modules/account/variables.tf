variable "control_plane" {
  description = "Which control plane may launch machines here: the output `control_plane` of the control plane's module, whole."
  type = object({
    name            = string
    worker_role_arn = string
    reaper_role_arn = string
  })

  validation {
    condition     = can(regex("^[a-z0-9]([a-z0-9-]{0,14}[a-z0-9])?$", var.control_plane.name))
    error_message = "Set control_plane.name to the name of the control plane: 1 to 16 of a-z, 0-9 and hyphen."
  }

  validation {
    condition     = alltrue([for arn in [var.control_plane.worker_role_arn, var.control_plane.reaper_role_arn] : can(regex("^arn:[a-z-]+:iam::[0-9]{12}:role/", arn))])
    error_message = "Set control_plane.worker_role_arn and reaper_role_arn to the ARNs in the control plane's output control_plane."
  }
}

variable "external_id" {
  description = "The external id that the control plane made for this account: its output `external_ids`, at this account's id."
  type        = string
  sensitive   = true

  validation {
    condition     = can(regex("^[A-Za-z0-9_+=,.@:/-]+$", var.external_id)) && length(var.external_id) >= 20
    error_message = "Set external_id to the one in the control plane's output external_ids: do not make one up."
  }
}

variable "regions" {
  description = "Where machines may be launched: by region, the subnets, and either `vpc_id`, for a security group that lets out and lets nothing in, or `security_groups` of yours. `images` are allowed (an AMI id, or the path of an SSM parameter that holds one); the first is the default. `root_volume`, `associate_public_ip` and `capacity_reservation` are as docs/machines.md has them."
  type = map(object({
    subnets         = list(string)
    vpc_id          = optional(string)
    security_groups = optional(list(string), [])
    images          = optional(list(string), ["/aws/service/ami-amazon-linux-latest/al2023-ami-kernel-default-x86_64"])
    root_volume = optional(object({
      size_gb             = optional(number)
      type                = optional(string)
      iops                = optional(number)
      throughput          = optional(number)
      initialization_rate = optional(number)
    }))
    associate_public_ip  = optional(bool)
    capacity_reservation = optional(string)
  }))

  validation {
    condition     = length(var.regions) > 0 && alltrue([for name, r in var.regions : can(regex("^[a-z]{2,16}(-[a-z]{1,16}){1,3}-[0-9]{1,2}$", name)) && length(r.subnets) > 0])
    error_message = "Name at least one of regions, such as eu-west-2, each with at least one subnet."
  }

  validation {
    condition     = alltrue(flatten([for r in var.regions : [for s in r.subnets : can(regex("^subnet-[0-9a-f]+$", s))]]))
    error_message = "Give subnets by their ids (subnet-...)."
  }

  validation {
    condition     = alltrue([for r in var.regions : r.vpc_id != null || length(r.security_groups) > 0])
    error_message = "Give each of regions a vpc_id, for a security group to be made there, or security_groups of yours."
  }

  validation {
    condition     = alltrue(flatten([for r in var.regions : concat([for s in r.security_groups : can(regex("^sg-[0-9a-f]+$", s))], [r.vpc_id == null || can(regex("^vpc-[0-9a-f]+$", coalesce(r.vpc_id, "none")))])]))
    error_message = "Give security_groups and vpc_id by their ids (sg-..., vpc-...)."
  }

  validation {
    condition     = alltrue([for r in var.regions : can(regex("^(open|none|cr-[0-9a-z]+|arn:[a-z-]+:resource-groups:[^:]+:[0-9]{12}:group/.+)$", coalesce(r.capacity_reservation, "open")))])
    error_message = "Give capacity_reservation as the id of a reservation (cr-...), the ARN of a group of them, open or none."
  }

  validation {
    condition     = alltrue(flatten([for r in var.regions : [length(r.images) > 0, [for i in r.images : can(regex("^(ami-[0-9a-f]+|(/[A-Za-z0-9_.-]+)+)$", i))]]]))
    error_message = "Give each of regions at least one of images: an AMI id (ami-...), or the path of an SSM parameter that holds one, with its slash in front."
  }
}

variable "max_root_volume_gb" {
  description = "The most GiB that a request may ask for as its root volume, which the role then allows. Null: requests may not say."
  type        = number
  default     = null

  validation {
    condition     = coalesce(var.max_root_volume_gb, 1) >= 1 && coalesce(var.max_root_volume_gb, 1) <= 65536
    error_message = "Set max_root_volume_gb to 1 to 65536 GiB, or leave it out."
  }
}

variable "machine_tags" {
  description = "Tags for every machine, its volumes and its network interface, beside GARO's own."
  type        = map(string)
  default     = {}

  validation {
    condition     = alltrue([for k in keys(var.machine_tags) : can(regex("^[A-Za-z0-9 +=._:/@-]{1,128}$", k)) && !can(regex("(?i)^(aws:|garo:)", k)) && k != "Name"])
    error_message = "Choose other keys for machine_tags: Name and those in garo: are set by the control plane alone, aws: belongs to AWS."
  }
}

variable "request_tags" {
  description = "Keys of tags that requests may give a value."
  type        = list(string)
  default     = []

  validation {
    condition     = alltrue([for k in var.request_tags : can(regex("^[A-Za-z0-9 +=._:/@-]{1,128}$", k)) && !can(regex("(?i)^(aws:|garo:)", k)) && k != "Name"])
    error_message = "Choose other keys for request_tags: Name and those in garo: are set by the control plane alone, aws: belongs to AWS."
  }
}

variable "default_region" {
  description = "The region of requests that name none, and of the credential's parameter. It may be left out if there is one region only."
  type        = string
  default     = null

  validation {
    condition     = var.default_region != null || length(var.regions) == 1
    error_message = "Set default_region to one of regions: with several, somebody has to say which."
  }

  validation {
    condition     = var.default_region == null || contains(keys(var.regions), coalesce(var.default_region, "none"))
    error_message = "Set default_region to one of regions."
  }
}

variable "instance_types" {
  description = "Instance types that may be launched. Their architecture has to be that of the images."
  type        = list(string)
  default     = ["m7i.large", "m7a.large", "m6i.large", "m6a.large"]

  validation {
    condition     = length(var.instance_types) > 0 && alltrue([for t in var.instance_types : can(regex("^[a-z0-9-]+\\.[a-z0-9-]+$", t))])
    error_message = "List at least one of instance_types by its full name, such as m7i.large; patterns are not allowed."
  }
}

variable "instance_requirements" {
  description = "What instance types may have that nobody names, as docs/machines.md has it. The role may then launch any type but those of `exclude` and bare metal, beside instance_types. Null: types are named."
  type = object({
    vcpus     = object({ min = optional(number), max = number })
    memory_gb = optional(object({ min = optional(number), max = optional(number) }))
    arch      = optional(list(string))
    gpu       = optional(object({ min = optional(number), max = number }))
    exclude   = optional(list(string))
  })
  default = null

  validation {
    condition     = coalesce(try(var.instance_requirements.vcpus.max, null), 1) >= 1 && coalesce(try(var.instance_requirements.vcpus.max, null), 1) <= 2048
    error_message = "Set instance_requirements.vcpus.max to the most vCPUs that a machine may have, 1 to 2048."
  }

  validation {
    condition     = alltrue([for a in coalesce(try(var.instance_requirements.arch, null), []) : contains(["x86_64", "arm64"], a)])
    error_message = "Give instance_requirements.arch as x86_64 and arm64."
  }

  validation {
    condition     = alltrue([for e in coalesce(try(var.instance_requirements.exclude, null), []) : can(regex("^[a-z0-9.*-]{1,64}$", e))])
    error_message = "Give instance_requirements.exclude as instance types, with * for any text, such as t*."
  }
}

variable "image_owners" {
  description = "Whose images may be launched: `amazon`, or the id of an AWS account. EC2 compares an image's alias where it has one, and its account's id only where it has none: `amazon` lets in the images of verified providers too, such as Canonical's, which the id of Canonical's account may refuse. Null: `amazon` and this account."
  type        = list(string)
  default     = null

  validation {
    condition     = var.image_owners == null || (length(coalesce(var.image_owners, [])) > 0 && alltrue([for o in coalesce(var.image_owners, []) : can(regex("^(amazon|[0-9]{12})$", o))]))
    error_message = "Give image_owners as amazon or as an account's twelve digits, at least one."
  }
}

variable "github_credential" {
  description = "The SSM parameter of the credential that registers runners, in the default region. With `create` it is made empty, to be filled by `aws ssm put-parameter --overwrite`; Terraform never sees its value. `app_id` and `installation_id` if it is a GitHub App's key."
  type = object({
    parameter       = optional(string, "/github/runner/pat")
    create          = optional(bool, true)
    app_id          = optional(number)
    installation_id = optional(number)
  })
  default = {}

  validation {
    condition     = can(regex("^(/[A-Za-z0-9_.-]+)+$", var.github_credential.parameter))
    error_message = "Begin github_credential.parameter with a slash, end it without one, and use letters, digits, dot, underscore and hyphen between slashes."
  }

  validation {
    condition     = (var.github_credential.app_id == null) == (var.github_credential.installation_id == null)
    error_message = "Set github_credential.app_id and installation_id together, or neither for a personal access token."
  }
}

variable "more_github_credentials" {
  description = "Further credentials of the same rights, for more registrations a minute and in place of one that GitHub refuses: of other Apps, or tokens of other users. Each is as github_credential, in a parameter of its own. docs/deploy.md has the arithmetic."
  type = list(object({
    parameter       = string
    create          = optional(bool, true)
    app_id          = optional(number)
    installation_id = optional(number)
  }))
  default = []

  validation {
    condition     = length(var.more_github_credentials) <= 4 && alltrue([for c in var.more_github_credentials : can(regex("^(/[A-Za-z0-9_.-]+)+$", c.parameter))])
    error_message = "Name at most four more_github_credentials. Begin each parameter with a slash, end it without one, and use letters, digits, dot, underscore and hyphen between slashes."
  }

  validation {
    condition     = alltrue([for c in var.more_github_credentials : (c.app_id == null) == (c.installation_id == null)])
    error_message = "Set app_id and installation_id of each of more_github_credentials together, or neither for a personal access token."
  }

  validation {
    condition     = length(distinct(concat([var.github_credential.parameter], var.more_github_credentials[*].parameter))) == 1 + length(var.more_github_credentials)
    error_message = "Give each of more_github_credentials a parameter of its own, other than that of github_credential."
  }
}

variable "role_name" {
  description = "Name of the role that the control plane borrows."
  type        = string
  default     = "GitHubRunnerAssumeRole"

  validation {
    condition     = can(regex("^[0-9A-Za-z_+=,.@-]{1,64}$", var.role_name))
    error_message = "Choose a role_name of 1 to 64 letters, digits and _+=,.@-."
  }
}

variable "instance_profile" {
  description = "Whether machines get an instance profile, and the ARNs of the policies that jobs then have. Null: none, and a machine has no AWS rights. Every job on a machine has what you give here."
  type = object({
    name        = optional(string, "garo-machine")
    policy_arns = optional(list(string), [])
  })
  default = null

  validation {
    condition     = var.instance_profile == null || alltrue([for arn in try(var.instance_profile.policy_arns, []) : can(regex("^arn:[a-z-]+:iam::([0-9]{12}|aws):policy/", arn))])
    error_message = "Give instance_profile.policy_arns as the ARNs of IAM policies."
  }

  validation {
    condition     = var.instance_profile == null || !contains([for arn in try(var.instance_profile.policy_arns, []) : reverse(split("/", arn))[0]], "AdministratorAccess")
    error_message = "Leave AdministratorAccess out of instance_profile.policy_arns: any job could take the account over. Name what jobs need."
  }
}

variable "hop_limit" {
  description = "Over how many network hops machines' metadata service answers: 2 lets containers of jobs use the role of instance_profile, with jobs_role in the registration."
  type        = number
  default     = 1

  validation {
    condition     = contains([1, 2], var.hop_limit) && (var.hop_limit == 1 || var.instance_profile != null)
    error_message = "Set hop_limit to 1, or to 2 with an instance_profile."
  }
}

variable "create_spot_role" {
  description = "Whether to make AWSServiceRoleForEC2Spot, which spot machines need once in each account. Set it if the account never had a spot machine."
  type        = bool
  default     = false
}

variable "kms_key_arns" {
  description = "ARNs of the KMS keys of yours that volumes or images are encrypted with, the account's default key for EBS among them. Keys that AWS keeps need no entry."
  type        = list(string)
  default     = []

  validation {
    condition     = alltrue([for arn in var.kms_key_arns : can(regex("^arn:[a-z-]+:kms:[a-z0-9-]+:[0-9]{12}:key/", arn))])
    error_message = "Give kms_key_arns as ARNs of keys (arn:aws:kms:REGION:ACCOUNT:key/ID), not of aliases."
  }
}

variable "grant_spot_role" {
  description = "Whether AWSServiceRoleForEC2Spot may use kms_key_arns, which spot machines need. The role has to be there, so set it to false in an account without spot machines."
  type        = bool
  default     = true
}

variable "permissions_boundary" {
  description = "ARN of a policy that bounds every role made here. Null: none."
  type        = string
  default     = null

  validation {
    condition     = var.permissions_boundary == null || can(regex("^arn:[a-z-]+:iam::[0-9a-z]+:policy/", coalesce(var.permissions_boundary, "none")))
    error_message = "Set permissions_boundary to the ARN of an IAM policy."
  }
}

variable "tags" {
  description = "Tags for everything that can have them, beside Service and ControlPlane."
  type        = map(string)
  default     = {}

  validation {
    condition     = !anytrue([for k in keys(var.tags) : startswith(k, "garo:") || startswith(lower(k), "aws:")])
    error_message = "Choose other keys for tags: garo: marks machines and is set by the control plane alone, aws: belongs to AWS."
  }
}
