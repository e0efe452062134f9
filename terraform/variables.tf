variable "name" {
  description = "Name of the control plane. It is in the names of everything that it makes, in the tags of its machines, and in the names under which runners register."
  type        = string
  default     = "garo"

  validation {
    condition     = can(regex("^[a-z0-9]([a-z0-9-]{0,14}[a-z0-9])?$", var.name))
    error_message = "Choose a name of 1 to 16 of a-z, 0-9 and hyphen that begins and ends with a letter or digit: longer ones do not fit into a runner's name at GitHub."
  }
}

variable "package" {
  description = "Where the Lambda functions' zips are, named garo-PART-linux-ARCH.zip. Either `directory` (what `make build` or a release's download made), or `s3_bucket` and `s3_prefix`. `sha256` has the hex digests by part (api, worker, reaper), which are then verified; S3 needs them to see a change."
  type = object({
    directory = optional(string)
    s3_bucket = optional(string)
    s3_prefix = optional(string, "")
    sha256    = optional(map(string), {})
  })

  validation {
    condition     = (var.package.directory == null) != (var.package.s3_bucket == null)
    error_message = "Set exactly one of package.directory and package.s3_bucket."
  }

  validation {
    condition     = var.package.s3_bucket == null || length(setsubtract(["api", "worker", "reaper"], keys(var.package.sha256))) == 0
    error_message = "Give package.sha256 for api, worker and reaper: without them an object that changed in the bucket would not be noticed."
  }

  validation {
    condition     = alltrue([for part, sum in var.package.sha256 : contains(["api", "worker", "reaper"], part) && can(regex("^[0-9a-f]{64}$", sum))])
    error_message = "Write package.sha256 as 64 lower-case hex digits for each of api, worker and reaper, as sha256sum prints them."
  }
}

variable "architecture" {
  description = "What the functions run on: arm64, or amd64."
  type        = string
  default     = "arm64"

  validation {
    condition     = contains(["arm64", "amd64"], var.architecture)
    error_message = "Set architecture to arm64 or amd64."
  }
}

variable "accounts" {
  description = "The AWS accounts that machines may be launched into, by their twelve digits, and what callers may choose there. The output `registration` of modules/account has most of it. See docs/deploy.md for each field."
  type = map(object({
    role_arn     = optional(string)
    repositories = optional(list(object({ id = string, name = string })), [])
    owners       = optional(list(object({ id = string, name = string })), [])
    server       = optional(string)
    scope        = optional(object({ kind = string, id = string, name = string, runner_group = string }))
    regions = map(object({
      subnets          = list(string)
      security_groups  = optional(list(string), [])
      images           = list(string)
      instance_profile = optional(string)
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
    default_region         = optional(string)
    instance_types         = list(string)
    default_instance_types = optional(list(string))
    markets                = optional(list(string), ["spot", "ondemand"])
    spot_fallback          = optional(bool, true)
    modes                  = optional(list(string), ["shared", "ephemeral"])
    max_timeout            = optional(number)
    hard                   = optional(number)
    max_runners            = optional(number, 10)
    max_open_requests      = optional(number)
    pacing                 = optional(object({ burst = number, interval_ms = number }))
    github = optional(object({
      parameter       = optional(string)
      app_id          = optional(number)
      installation_id = optional(number)
    }), {})
    more_github = optional(list(object({
      parameter       = string
      app_id          = optional(number)
      installation_id = optional(number)
    })), [])
    allow = optional(object({
      public_repositories = optional(bool, false)
      pull_request_target = optional(bool, false)
      workflow_run        = optional(bool, false)
      issue_comment       = optional(bool, false)
      self_hosted_callers = optional(bool, false)
      forks               = optional(bool)
      events              = optional(list(string))
    }), {})
    only = optional(object({
      refs              = optional(list(string), [])
      environments      = optional(list(string), [])
      job_workflow_refs = optional(list(string), [])
      properties        = optional(map(string), {})
    }), {})
    runs_on = optional(list(object({
      labels = optional(list(string))
      pin    = optional(string)
      only = optional(object({
        repositories = optional(list(object({ id = string, name = string })), [])
        events       = optional(list(string), [])
      }))
      region          = optional(string)
      type            = optional(string)
      instance_types  = optional(list(string))
      image_id        = optional(string)
      subnets         = optional(list(string))
      security_groups = optional(list(string))
      cpu             = optional(number)
      memory          = optional(number)
      gpu             = optional(number)
      arch            = optional(string)
      timeout         = optional(number)
    })))
    on_forbidden = optional(string)
    on_failure   = optional(string)
    instance_requirements = optional(object({
      vcpus     = object({ min = optional(number), max = number })
      memory_gb = optional(object({ min = optional(number), max = optional(number) }))
      arch      = optional(list(string))
      gpu       = optional(object({ min = optional(number), max = number }))
      exclude   = optional(list(string))
    }))
    environment        = optional(map(string))
    closed             = optional(bool)
    max_root_volume_gb = optional(number)
    tags               = optional(map(string))
    request_tags       = optional(list(string))
    spot_max_price     = optional(string)
    daily_budget       = optional(object({ usd = string, wait = optional(bool) }))
    cpu_credits        = optional(string)
    tenancy            = optional(string)
    boot_limit         = optional(number)
    boot_limits        = optional(map(number))
    fallback_regions   = optional(list(string))
    setup = optional(object({
      script = optional(string)
      path   = optional(string)
      sha256 = optional(string)
      limit  = optional(number)
    }))
    job_user = optional(object({
      sudo   = optional(bool)
      groups = optional(list(string))
    }))
    packages       = optional(list(string))
    hooks          = optional(object({ started = optional(string), completed = optional(string) }))
    instance_store = optional(string)
    jobs_role      = optional(bool)
    hop_limit      = optional(number)
  }))
  default = {}

  validation {
    condition     = alltrue([for id, a in var.accounts : can(regex("^[0-9]{12}$", id))])
    error_message = "Name each of accounts by the twelve digits of its id, in quotes."
  }

  validation {
    condition     = alltrue([for a in var.accounts : length(a.repositories) + length(a.owners) > 0])
    error_message = "Give each of accounts at least one of repositories or owners: they alone are served. Find the ids with `gh api repos/OWNER/NAME --jq '.id, .owner.id'`."
  }

  validation {
    condition     = alltrue(flatten([for a in var.accounts : [for n in concat(a.repositories, a.owners) : can(regex("^[0-9]{1,20}$", n.id)) && n.name != ""]]))
    error_message = "Give repositories and owners GitHub's numeric id and the name: `gh api repos/OWNER/NAME --jq '.id, .owner.id'` prints the ids."
  }

  validation {
    condition = alltrue([for a in [for a in var.accounts : a if a.scope != null] :
      a.scope.kind == "organization" && can(regex("^[0-9]{1,20}$", a.scope.id)) && can(regex("^[^/]+$", a.scope.name))
    && trimspace(a.scope.runner_group) != "" && lower(a.scope.runner_group) != "default"])
    error_message = "Set scope to { kind = \"organization\", id, name, runner_group }: the id and the login of the organization (`gh api orgs/NAME --jq .id`) and the name of a runner group of its own, which is not the default one. Leave it out to register in repositories."
  }

  validation {
    condition     = alltrue([for a in var.accounts : a.scope == null || join(",", a.modes) == "ephemeral"])
    error_message = "Set modes to [\"ephemeral\"] beside scope: jobs of several repositories come to the runners of an organization."
  }

  validation {
    condition     = alltrue([for a in [for a in var.accounts : a if a.scope != null] : alltrue([for o in a.owners : o.id == a.scope.id]) && alltrue([for r in a.repositories : startswith(r.name, "${a.scope.name}/")])])
    error_message = "List beside scope only the organization itself under owners, and only its own repositories: its runners serve no others."
  }

  validation {
    condition     = alltrue([for a in var.accounts : length(a.regions) > 0 && alltrue([for r in a.regions : length(r.subnets) > 0 && length(r.images) > 0])])
    error_message = "Give each of accounts at least one region, and each region at least one subnet and one image (an AMI id, or the path of an SSM parameter that holds one)."
  }

  validation {
    condition     = alltrue(flatten([for a in var.accounts : [for r in coalesce(a.fallback_regions, []) : contains(keys(a.regions), r)]]))
    error_message = "List in fallback_regions only regions of the account, in the order to try."
  }

  validation {
    condition     = alltrue([for a in var.accounts : a.default_region == null || contains(keys(a.regions), coalesce(a.default_region, "none"))])
    error_message = "Set default_region to one of the account's regions, or leave it out if there is one region only."
  }

  validation {
    condition     = alltrue([for a in var.accounts : length(a.instance_types) > 0 && length(setsubtract(a.default_instance_types != null ? a.default_instance_types : [], a.instance_types)) == 0])
    error_message = "List at least one of instance_types, and put only such into default_instance_types as are in it."
  }

  validation {
    condition = alltrue(flatten([for a in var.accounts : [for variable, value in coalesce(a.environment, {}) :
      can(regex("^[A-Za-z_][A-Za-z0-9_]{0,63}$", variable)) && can(regex("^[^[:cntrl:]]+$", value))
    && !can(regex("(?i)^(ACTIONS_RUNNER_|GARO_|GITHUB_|(PATH|HOME|USER|LOGNAME|SHELL|PWD|CI)$)", variable))]]))
    error_message = "Give each variable in environment a name of letters, digits and _ that the machine does not set itself, and a value in one line. docs/images.md has the names that are taken."
  }

  validation {
    condition = alltrue(flatten([for a in var.accounts : [for name in keys(coalesce(a.environment, {})) :
    !can(regex("(?i)((^|_)(AUTH|CREDS?|PASS|PAT|PWD)|TOKENS?|SECRETS?|PASSWORDS?|PASSWD|PASSPHRASE|CREDENTIALS?|KEYS?)(_|$)", name))]]))
    error_message = "Leave secrets out of environment: every job can read it. A name that sounds like a secret's is refused."
  }

  validation {
    condition     = alltrue(flatten([for a in var.accounts : [for r in a.regions : r.root_volume == null || contains(["gp3", "gp2", "io1", "io2"], coalesce(try(r.root_volume.type, null), "gp3"))]]))
    error_message = "Set root_volume.type to gp3, gp2, io1 or io2, or leave it out for the image's. docs/machines.md has what each can have."
  }

  validation {
    condition     = alltrue(flatten([for a in var.accounts : [for k in concat(keys(coalesce(a.tags, {})), coalesce(a.request_tags, [])) : can(regex("^[A-Za-z0-9 +=._:/@-]{1,128}$", k)) && !can(regex("(?i)^(aws:|garo:)", k)) && k != "Name"]]))
    error_message = "Choose other keys for tags and request_tags: Name and those in garo: are set by GARO alone, aws: belongs to AWS."
  }

  validation {
    condition     = alltrue(flatten([for a in var.accounts : [for s in concat([coalesce(a.boot_limit, 60)], values(coalesce(a.boot_limits, {}))) : s >= 60 && s <= 3600 && floor(s) == s]]))
    error_message = "Set boot_limit, and each of boot_limits, to 60 to 3600 seconds, or leave them out."
  }

  validation {
    condition     = alltrue([for a in var.accounts : contains(["standard", "unlimited"], coalesce(a.cpu_credits, "standard")) && coalesce(a.tenancy, "dedicated") == "dedicated" && can(regex("^[0-9]{1,4}(\\.[0-9]{1,6})?$", coalesce(a.spot_max_price, "1")))])
    error_message = "Set cpu_credits to standard or unlimited, tenancy to dedicated, and spot_max_price to US dollars an hour, or leave them out."
  }

  validation {
    condition = alltrue([for s in [for a in var.accounts : a.setup if a.setup != null] :
      (s.script == null) != (s.path == null) && (s.path == null) == (s.sha256 == null)
      && (s.script == null || length(coalesce(s.script, "none")) <= 8192 && startswith(coalesce(s.script, "none"), "#!") && !strcontains(coalesce(s.script, "none"), "{{"))
      && (s.sha256 == null || can(regex("^[0-9a-f]{64}$", s.sha256))) && coalesce(s.limit, 1) >= 1 && coalesce(s.limit, 1) <= 240
    ])
    error_message = "Give setup a script of at most 8192 bytes that begins with #! and has no double opening brace, or the path of one in SSM and its sha256, and a limit of at most 240 seconds. docs/images.md tells of both."
  }

  validation {
    condition = alltrue([for a in var.accounts : length(setsubtract(coalesce(a.packages, []), [
      "build-tools", "docker", "git", "git-lfs", "jq", "make", "mdadm", "python3", "rsync", "sudo", "unzip", "zip", "zstd",
    ])) == 0])
    error_message = "Name in packages some of those that docs/images.md lists. Install anything else in the image, or by setup."
  }

  validation {
    condition     = alltrue(flatten([for u in [for a in var.accounts : a.job_user if a.job_user != null] : [for g in coalesce(u.groups, []) : can(regex("^[a-z_][a-z0-9_-]{0,31}$", g)) && g != "root"]]))
    error_message = "Name in job_user.groups groups other than root, such as docker."
  }

  validation {
    condition     = alltrue([for a in var.accounts : coalesce(a.instance_store, "mount") == "mount"])
    error_message = "Set instance_store to mount, or leave it out."
  }

  validation {
    condition     = alltrue([for a in var.accounts : !coalesce(a.jobs_role, false) || anytrue([for r in a.regions : r.instance_profile != null && r.instance_profile != ""])])
    error_message = "Give a region an instance_profile where jobs_role is set, or leave jobs_role out."
  }

  validation {
    condition = alltrue([for a in var.accounts : coalesce(a.jobs_role, false) || alltrue([for r in a.regions : r.instance_profile == null || r.instance_profile == ""])
    || a.job_user == null || !(try(coalesce(a.job_user.sudo, false), false) || contains(try(coalesce(a.job_user.groups, []), []), "docker"))])
    error_message = "Set jobs_role where jobs can become root on machines with an instance_profile: root can use its role, whatever is closed to it. Or take the profile out."
  }

  validation {
    condition     = alltrue(flatten([for h in [for a in var.accounts : a.hooks if a.hooks != null] : [for f in [h.started, h.completed] : f == null || can(regex("^/[A-Za-z0-9._/-]+[.](sh|ps1|js)$", f))]]))
    error_message = "Give hooks the paths of scripts on the machine that end in .sh, .ps1 or .js."
  }

  validation {
    condition     = alltrue([for a in var.accounts : length(a.markets) > 0 && length(setsubtract(a.markets, ["spot", "ondemand"])) == 0])
    error_message = "Set markets to spot, ondemand or both; the first is the default."
  }

  validation {
    condition     = alltrue([for a in var.accounts : length(a.modes) > 0 && length(setsubtract(a.modes, ["shared", "ephemeral"])) == 0])
    error_message = "Set modes to shared, ephemeral or both; the first is the default."
  }

  validation {
    condition     = alltrue([for a in var.accounts : a.max_runners >= 1 && floor(a.max_runners) == a.max_runners])
    error_message = "Set max_runners to how many machines may live at once: a whole number of at least 1."
  }

  validation {
    condition     = alltrue([for a in var.accounts : coalesce(a.max_open_requests, 1) >= 1 && coalesce(a.max_open_requests, 1) <= 25000 && floor(coalesce(a.max_open_requests, 1)) == coalesce(a.max_open_requests, 1)])
    error_message = "Set max_open_requests to how many requests of one repository may wait at once: a whole number of 1 to 25000. Leave it out for 2000."
  }

  validation {
    condition     = alltrue(flatten([for a in var.accounts : [for e in coalesce(a.allow.events, []) : can(regex("^[a-z_]+$", e)) && !contains(["deployment", "merge_group", "pull_request", "push", "release", "repository_dispatch", "schedule", "workflow_dispatch"], e)]]))
    error_message = "List in allow.events the further events whose runs may ask, as GitHub names them, such as deployment_status. push, pull_request and the other usual ones are allowed anyway: docs/github.md."
  }

  validation {
    condition     = alltrue(flatten([for a in var.accounts : [for o in coalesce(a.runs_on, []) : (o.pin == null) != (length(coalesce(o.labels, [])) == 0) && can(regex("^[a-z0-9._-]{1,63}$", coalesce(o.pin, "p"))) && alltrue([for l in coalesce(o.labels, []) : can(regex("^[a-z0-9._-]{1,64}$", l))])]]))
    error_message = "Give each entry of runs_on either labels or a pin, of a-z, 0-9, dot, underscore and hyphen. docs/jobs.md has what they may be."
  }

  validation {
    condition     = alltrue([for a in var.accounts : can(regex("^[0-9]{1,6}(\\.[0-9]{1,6})?$", a.daily_budget.usd)) && can(regex("[1-9]", a.daily_budget.usd)) if a.daily_budget != null])
    error_message = "Set usd of daily_budget to US dollars a day, such as \"50\", or leave daily_budget out."
  }

  validation {
    condition     = alltrue(flatten([for a in var.accounts : [for what in [a.on_forbidden, a.on_failure] : contains(["leave", "cancel_run"], coalesce(what, "leave"))]]))
    error_message = "Set on_forbidden and on_failure to leave or cancel_run, or leave them out. docs/jobs.md has what they do."
  }

  validation {
    condition     = alltrue([for a in var.accounts : coalesce(a.hard, 21600) > 0 && coalesce(a.hard, 21600) <= 86400 && coalesce(a.max_timeout, 1) > 0])
    error_message = "Set hard to at most 86400 seconds (a day) and max_timeout to seconds, or leave them out."
  }

  validation {
    condition     = alltrue(flatten([for a in var.accounts : [for c in concat([a.github], a.more_github) : (c.app_id == null) == (c.installation_id == null)]]))
    error_message = "Set app_id and installation_id of github and of each of more_github together, or neither for a personal access token."
  }

  validation {
    condition     = alltrue([for a in var.accounts : length(a.more_github) <= 4])
    error_message = "Name at most four credentials in more_github, beside the one of github."
  }

  validation {
    condition = alltrue(flatten([for a in var.accounts : [for key in [
      [for c in concat([a.github], a.more_github) : coalesce(c.parameter, "/github/runner/pat")],
      [for c in concat([a.github], a.more_github) : c.app_id if c.app_id != null],
    ] : length(distinct(key)) == length(key)]]))
    error_message = "Give each credential of github and more_github a parameter of its own, and name each App once: docs/deploy.md says what several are good for."
  }

  validation {
    condition     = alltrue([for a in var.accounts : a.role_arn == null || can(regex("^arn:[a-z-]+:iam::[0-9]{12}:role/", coalesce(a.role_arn, "none")))])
    error_message = "Set role_arn to the ARN of a role, or leave it out for GitHubRunnerAssumeRole of the account."
  }
}

variable "webhook_secrets" {
  description = "What the webhooks of an account's repositories are signed with if no GitHub App sends them, by the account's id: one secret, or two while one replaces the other. Each is at least 32 random characters. They are in the state as they are."
  type        = map(list(string))
  default     = {}
  sensitive   = true

  validation {
    condition     = alltrue([for id, secrets in var.webhook_secrets : contains(keys(var.accounts), id) && length(secrets) <= 2 && alltrue([for s in secrets : length(s) >= 32])])
    error_message = "Give webhook_secrets one or two secrets of at least 32 characters, by the id of one of accounts: openssl rand -hex 32 makes one."
  }
}

variable "setup_scripts" {
  description = "Set-up scripts of at most 64 KB, by a name of a-z, 0-9 and hyphens. The output setup_scripts has of each what `setup` of an account names: path and sha256. docs/images.md tells what they do."
  type        = map(string)
  default     = {}

  validation {
    condition     = alltrue([for id, script in var.setup_scripts : can(regex("^[a-z0-9-]{1,64}$", id)) && startswith(script, "#!") && length(base64encode(script)) <= 87384])
    error_message = "Name each of setup_scripts by 1 to 64 of a-z, 0-9 and hyphen, and give it a text of at most 64 KB that begins with #!, such as file(\"setup.sh\")."
  }
}

variable "operators" {
  description = "SHA-256 in hex of each operator's token, by the operator's name. The token itself begins with garo_op_ and is never given to Terraform; docs/deploy.md has the command that makes one."
  type        = map(string)
  default     = {}

  validation {
    condition     = alltrue([for sum in values(var.operators) : can(regex("^[0-9a-f]{64}$", sum))])
    error_message = "Give operators the SHA-256 of their token as 64 lower-case hex digits: printf %s \"$token\" | sha256sum. Never the token itself."
  }
}

variable "key_ids" {
  description = "Ids of the keys that boot tokens, sessions and configs are made with, the current one first. docs/operate.md has the three steps of a rotation. Empty: Terraform makes no keys and its state has none; write the parameter yourself, as docs/operate.md says."
  type        = list(string)
  default     = ["k1"]

  validation {
    condition     = length(var.key_ids) <= 2 && length(distinct(var.key_ids)) == length(var.key_ids)
    error_message = "Name at most two key_ids, and none twice: the current one, and during a rotation the one that comes or goes."
  }

  validation {
    condition     = alltrue([for k in var.key_ids : can(regex("^[a-z0-9]{1,16}$", k))])
    error_message = "Make each of key_ids of 1 to 16 of a-z and 0-9."
  }
}

variable "table" {
  description = "Name of the table. Null: that of the control plane. Set it when records were restored into a table of another name, as docs/operate.md says."
  type        = string
  default     = null

  validation {
    condition     = var.table == null || can(regex("^[A-Za-z0-9_.-]{3,255}$", coalesce(var.table, "none")))
    error_message = "Set table to 3 to 255 letters, digits, dots, underscores and hyphens."
  }
}

variable "parameters" {
  description = "Path under which the control plane's own SSM parameters are. Null: /NAME."
  type        = string
  default     = null

  validation {
    condition     = var.parameters == null || can(regex("^(/[A-Za-z0-9_.-]+)+$", coalesce(var.parameters, "none")))
    error_message = "Begin parameters with a slash, end it without one, and use letters, digits, dot, underscore and hyphen between slashes."
  }

  validation {
    condition     = !can(regex("(?i)^/(aws|ssm)", coalesce(var.parameters, "none")))
    error_message = "Choose another path for parameters: SSM keeps /aws and /ssm for itself."
  }
}

variable "oidc_issuers" {
  description = "Issuers whose ID tokens are believed. docs/github.md lists those of GitHub's products."
  type        = list(string)
  default     = ["https://token.actions.githubusercontent.com"]

  validation {
    condition     = length(var.oidc_issuers) > 0 && alltrue([for i in var.oidc_issuers : can(regex("^https://[^,/\\s]+(/[^,\\s]+)?$", i)) && !endswith(i, "/")])
    error_message = "Give at least one of oidc_issuers, exactly as the tokens have it: https, no slash at the end, no comma."
  }
}

variable "prices_url" {
  description = "Base address of AWS's public price list, from which the reaper reads on-demand prices, or of a copy of it. While it cannot be reached, they are unknown."
  type        = string
  default     = "https://pricing.us-east-1.amazonaws.com"

  validation {
    condition     = can(regex("^https://[^\\s]+[^/\\s]$", var.prices_url))
    error_message = "Set prices_url to an https address without a slash at its end."
  }
}

variable "github_url" {
  description = "Base address of GitHub's REST API; an Enterprise Server has https://HOST/api/v3."
  type        = string
  default     = "https://api.github.com"

  validation {
    condition     = can(regex("^https://[^\\s]+[^/\\s]$", var.github_url))
    error_message = "Set github_url to an https address without a slash at its end."
  }
}

variable "runner_programs" {
  description = "GitHub's runner program by architecture (amd64, arm64), for images that have none: its version, where it is downloaded from and its SHA-256, all from the release's page of actions/runner."
  type        = map(object({ version = string, url = string, sha256 = string }))
  default     = {}

  validation {
    condition     = alltrue([for arch, p in var.runner_programs : contains(["amd64", "arm64"], arch) && startswith(p.url, "https://") && can(regex("^[0-9a-f]{64}$", p.sha256))])
    error_message = "Give runner_programs for amd64, arm64 or both, each with its version, an https url and the sha256 as 64 lower-case hex digits."
  }
}

variable "domain" {
  description = "A domain name of your own for the API: its name, the ARN of a certificate in the same region, and the id of the Route 53 zone if Terraform shall make the record too. The API's own address is closed then."
  type = object({
    name            = string
    certificate_arn = string
    zone_id         = optional(string)
  })
  default = null

  validation {
    condition     = var.domain == null || can(regex("^[a-z0-9-]+(\\.[a-z0-9-]+)+$", try(var.domain.name, "")))
    error_message = "Set domain.name to a plain domain name in lower case, such as garo.example.org, without https:// and without a slash."
  }

  validation {
    condition     = var.domain == null || can(regex("^arn:[a-z-]+:acm:", try(var.domain.certificate_arn, "")))
    error_message = "Set domain.certificate_arn to the ARN of an ACM certificate in the region of the control plane."
  }
}

variable "throttling" {
  description = "How often a route may be called: requests a second, and at once. Merged over the defaults; the keys are the routes of docs/api.md, and `default` is for those without a number of their own."
  type        = map(object({ rate = number, burst = number }))
  default     = {}

  validation {
    condition     = alltrue([for t in values(var.throttling) : t.rate > 0 && t.burst > 0])
    error_message = "Set rate and burst of throttling to numbers above 0; a route cannot be closed this way."
  }

  validation {
    condition     = length(setsubtract(keys(var.throttling), concat(keys(local.routes), ["default"]))) == 0
    error_message = "Name only routes of docs/api.md in throttling, such as \"POST /start\", or default."
  }
}

variable "memory_mb" {
  description = "Memory of the functions in MB, by part (api, worker, reaper). CPU comes in proportion. Merged over the defaults: 256, and 512 for the reaper."
  type        = map(number)
  default     = {}

  validation {
    condition     = alltrue([for part, mb in var.memory_mb : contains(["api", "worker", "reaper"], part) && mb >= 128 && mb <= 10240])
    error_message = "Set memory_mb for api, worker or reaper, between 128 and 10240."
  }
}

variable "reserved_concurrency" {
  description = "Concurrent executions that are kept for a part (api, worker, reaper), and that it may not exceed. 100 for the API serve all that its throttles let through. By default none is reserved, since an account may have only 10 in all."
  type        = map(number)
  default     = {}

  validation {
    condition     = alltrue([for part, n in var.reserved_concurrency : contains(["api", "worker", "reaper"], part) && n >= (part == "worker" ? 10 : part == "reaper" ? 2 : 1)])
    error_message = "Set reserved_concurrency for api (1 or more), worker (10 or more, as many as its queue starts) or reaper (2 or more: a run may overlap the next)."
  }
}

variable "reaper_shards" {
  description = "How many runs of the reaper share its work every minute. One does 10,000 live runners with room to spare; see docs/performance.md before you raise it. If you reserve concurrency for the reaper, reserve two for each."
  type        = number
  default     = 1

  validation {
    condition     = contains(range(1, 17), var.reaper_shards)
    error_message = "Set reaper_shards between 1 and 16: each has its part of what GitHub grants a credential."
  }
}

variable "log_level" {
  description = "What is logged: debug, info, warn or error. Alarms need error; audit lines and metrics need info."
  type        = string
  default     = "info"

  validation {
    condition     = contains(["debug", "info", "warn", "error"], var.log_level)
    error_message = "Set log_level to debug, info, warn or error."
  }
}

variable "log_retention_days" {
  description = "How long logs are kept, in days."
  type        = number
  default     = 30

  validation {
    condition     = contains([1, 3, 5, 7, 14, 30, 60, 90, 120, 150, 180, 365, 400, 545, 731, 1096, 1827, 2192, 2557, 2922, 3288, 3653], var.log_retention_days)
    error_message = "Set log_retention_days to a number of days that CloudWatch knows: 1, 3, 5, 7, 14, 30, 60, 90, 120, 150, 180, 365, 400, 545, 731, 1096, 1827, 2192, 2557, 2922, 3288 or 3653."
  }
}

variable "tracing" {
  description = "Whether AWS X-Ray traces the functions."
  type        = bool
  default     = false
}

variable "kms_key_arn" {
  description = "ARN of a KMS key of yours for table, queues, parameters, logs, topic and the functions' environment. Null: the keys that AWS keeps. docs/deploy.md has the key policy that it needs."
  type        = string
  default     = null

  validation {
    condition     = var.kms_key_arn == null || can(regex("^arn:[a-z-]+:kms:[a-z0-9-]+:[0-9]{12}:key/", coalesce(var.kms_key_arn, "none")))
    error_message = "Set kms_key_arn to the ARN of a key (arn:aws:kms:REGION:ACCOUNT:key/ID), not of an alias."
  }
}

variable "vpc" {
  description = "Subnets and security groups of yours for the functions, for a fixed address at GitHub's IP allow lists. The subnets need a way to AWS and GitHub: docs/deploy.md. Null: the functions are in no VPC, and their addresses change."
  type = object({
    subnets         = list(string)
    security_groups = list(string)
  })
  default = null

  validation {
    condition     = var.vpc == null || alltrue([for s in try(var.vpc.subnets, []) : can(regex("^subnet-[0-9a-f]+$", s))]) && length(try(var.vpc.subnets, ["none"])) > 0
    error_message = "Give vpc.subnets by their ids (subnet-...), at least one."
  }

  validation {
    condition     = var.vpc == null || alltrue([for s in try(var.vpc.security_groups, []) : can(regex("^sg-[0-9a-f]+$", s))]) && length(try(var.vpc.security_groups, ["none"])) > 0
    error_message = "Give vpc.security_groups by their ids (sg-...), at least one."
  }
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

variable "alarm_emails" {
  description = "Who gets the alarms by e-mail. Each has to confirm once. Anything else can subscribe to the topic in the outputs."
  type        = list(string)
  default     = []

  validation {
    condition     = alltrue([for a in var.alarm_emails : can(regex("^[^@\\s]+@[^@\\s]+$", a))])
    error_message = "Give alarm_emails as e-mail addresses."
  }
}

variable "deletion_protection" {
  description = "Whether the table refuses to be deleted. Set it to false and apply before `terraform destroy`."
  type        = bool
  default     = true
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
