# Each validation refuses what it is there for.
mock_provider "aws" {
  source = "./tests/mocks"
}

mock_provider "random" {}

variables {
  package = { directory = "tests/package" }
}

run "name_too_long" {
  command = plan
  variables {
    name = "a-name-of-17-char"
  }
  expect_failures = [var.name]
}

run "package_of_nothing" {
  command = plan
  variables {
    package = {}
  }
  expect_failures = [var.package]
}

run "package_without_digests" {
  command = plan
  variables {
    package = { s3_bucket = "releases" }
  }
  expect_failures = [var.package]
}

run "package_digest_in_base64" {
  command = plan
  variables {
    package = { directory = "tests/package", sha256 = { api = "mTCnqtILkQsQ3Wi6RVgIO3UnNRojy2DY2aCCdhpBahs=" } }
  }
  expect_failures = [var.package]
}

run "architecture_unknown" {
  command = plan
  variables {
    architecture = "x86_64"
  }
  expect_failures = [var.architecture]
}

run "account_id_short" {
  command = plan
  variables {
    accounts = {
      "1234" = {
        owners         = [{ id = "1", name = "acme" }]
        regions        = { eu-west-2 = { subnets = ["subnet-0a"], images = ["ami-0a"] } }
        instance_types = ["m7i.large"]

      }
    }
  }
  expect_failures = [var.accounts]
}

run "account_serves_nobody" {
  command = plan
  variables {
    accounts = {
      "222222222222" = {

        regions        = { eu-west-2 = { subnets = ["subnet-0a"], images = ["ami-0a"] } }
        instance_types = ["m7i.large"]

      }
    }
  }
  expect_failures = [var.accounts]
}

run "owner_by_name_alone" {
  command = plan
  variables {
    accounts = {
      "222222222222" = {
        owners         = [{ id = "acme", name = "acme" }]
        regions        = { eu-west-2 = { subnets = ["subnet-0a"], images = ["ami-0a"] } }
        instance_types = ["m7i.large"]

      }
    }
  }
  expect_failures = [var.accounts]
}

run "region_without_subnet" {
  command = plan
  variables {
    accounts = {
      "222222222222" = {
        owners         = [{ id = "1", name = "acme" }]
        regions        = { eu-west-2 = { subnets = [], images = ["ami-0a"] } }
        instance_types = ["m7i.large"]

      }
    }
  }
  expect_failures = [var.accounts]
}

run "environment_of_the_machine" {
  command = plan
  variables {
    accounts = {
      "222222222222" = {
        owners         = [{ id = "1", name = "acme" }]
        regions        = { eu-west-2 = { subnets = ["subnet-0a"], images = ["ami-0a"] } }
        instance_types = ["m7i.large"]
        environment    = { ACTIONS_RUNNER_HOOK_JOB_STARTED = "/hook.sh" }
      }
    }
  }
  expect_failures = [var.accounts]
}

run "setup_of_two_kinds" {
  command = plan
  variables {
    accounts = {
      "222222222222" = {
        owners         = [{ id = "1", name = "acme" }]
        regions        = { eu-west-2 = { subnets = ["subnet-0a"], images = ["ami-0a"] } }
        instance_types = ["m7i.large"]
        setup          = { script = "#!/bin/sh", path = "/garo/setup/x", sha256 = "9930a7aad20b910b10dd68ba4558083b7527351a23cb60d8d9a082761a416a1b" }
      }
    }
  }
  expect_failures = [var.accounts]
}

run "setup_without_its_hash" {
  command = plan
  variables {
    accounts = {
      "222222222222" = {
        owners         = [{ id = "1", name = "acme" }]
        regions        = { eu-west-2 = { subnets = ["subnet-0a"], images = ["ami-0a"] } }
        instance_types = ["m7i.large"]
        setup          = { path = "/garo/setup/x" }
      }
    }
  }
  expect_failures = [var.accounts]
}

run "setup_for_too_long" {
  command = plan
  variables {
    accounts = {
      "222222222222" = {
        owners         = [{ id = "1", name = "acme" }]
        regions        = { eu-west-2 = { subnets = ["subnet-0a"], images = ["ami-0a"] } }
        instance_types = ["m7i.large"]
        setup          = { script = "#!/bin/sh", limit = 241 }
      }
    }
  }
  expect_failures = [var.accounts]
}

run "setup_script_of_no_kind" {
  command = plan
  variables {
    setup_scripts = { build = "echo hello" }
  }
  expect_failures = [var.setup_scripts]
}

run "package_that_nobody_knows" {
  command = plan
  variables {
    accounts = {
      "222222222222" = {
        owners         = [{ id = "1", name = "acme" }]
        regions        = { eu-west-2 = { subnets = ["subnet-0a"], images = ["ami-0a"] } }
        instance_types = ["m7i.large"]
        packages       = ["emacs"]
      }
    }
  }
  expect_failures = [var.accounts]
}

run "group_root" {
  command = plan
  variables {
    accounts = {
      "222222222222" = {
        owners         = [{ id = "1", name = "acme" }]
        regions        = { eu-west-2 = { subnets = ["subnet-0a"], images = ["ami-0a"] } }
        instance_types = ["m7i.large"]
        job_user       = { groups = ["root"] }
      }
    }
  }
  expect_failures = [var.accounts]
}

run "hook_of_no_kind" {
  command = plan
  variables {
    accounts = {
      "222222222222" = {
        owners         = [{ id = "1", name = "acme" }]
        regions        = { eu-west-2 = { subnets = ["subnet-0a"], images = ["ami-0a"] } }
        instance_types = ["m7i.large"]
        hooks          = { started = "/bin/true" }
      }
    }
  }
  expect_failures = [var.accounts]
}

run "instance_store_of_no_kind" {
  command = plan
  variables {
    accounts = {
      "222222222222" = {
        owners         = [{ id = "1", name = "acme" }]
        regions        = { eu-west-2 = { subnets = ["subnet-0a"], images = ["ami-0a"] } }
        instance_types = ["m7i.large"]
        instance_store = "raid1"
      }
    }
  }
  expect_failures = [var.accounts]
}

run "jobs_role_without_a_profile" {
  command = plan
  variables {
    accounts = {
      "222222222222" = {
        owners         = [{ id = "1", name = "acme" }]
        regions        = { eu-west-2 = { subnets = ["subnet-0a"], images = ["ami-0a"] } }
        instance_types = ["m7i.large"]
        jobs_role      = true
      }
    }
  }
  expect_failures = [var.accounts]
}

run "root_beside_a_role" {
  command = plan
  variables {
    accounts = {
      "222222222222" = {
        owners         = [{ id = "1", name = "acme" }]
        regions        = { eu-west-2 = { subnets = ["subnet-0a"], images = ["ami-0a"], instance_profile = "ci" } }
        instance_types = ["m7i.large"]
        job_user       = { sudo = true }
      }
    }
  }
  expect_failures = [var.accounts]
}

run "docker_beside_a_role" {
  command = plan
  variables {
    accounts = {
      "222222222222" = {
        owners         = [{ id = "1", name = "acme" }]
        regions        = { eu-west-2 = { subnets = ["subnet-0a"], images = ["ami-0a"], instance_profile = "ci" } }
        instance_types = ["m7i.large"]
        job_user       = { groups = ["docker"] }
      }
    }
  }
  expect_failures = [var.accounts]
}

run "environment_with_a_secret" {
  command = plan
  variables {
    accounts = {
      "222222222222" = {
        owners         = [{ id = "1", name = "acme" }]
        regions        = { eu-west-2 = { subnets = ["subnet-0a"], images = ["ami-0a"] } }
        instance_types = ["m7i.large"]
        environment    = { NPM_TOKEN = "x" }
      }
    }
  }
  expect_failures = [var.accounts]
}

run "volume_of_no_type" {
  command = plan
  variables {
    accounts = {
      "222222222222" = {
        owners         = [{ id = "1", name = "acme" }]
        regions        = { eu-west-2 = { subnets = ["subnet-0a"], images = ["ami-0a"], root_volume = { type = "ssd" } } }
        instance_types = ["m7i.large"]
      }
    }
  }
  expect_failures = [var.accounts]
}

run "tag_that_is_ours" {
  command = plan
  variables {
    accounts = {
      "222222222222" = {
        owners         = [{ id = "1", name = "acme" }]
        regions        = { eu-west-2 = { subnets = ["subnet-0a"], images = ["ami-0a"] } }
        instance_types = ["m7i.large"]
        request_tags   = ["garo:runner"]
      }
    }
  }
  expect_failures = [var.accounts]
}

run "boot_limit_of_a_day" {
  command = plan
  variables {
    accounts = {
      "222222222222" = {
        owners         = [{ id = "1", name = "acme" }]
        regions        = { eu-west-2 = { subnets = ["subnet-0a"], images = ["ami-0a"] } }
        instance_types = ["m7i.large"]
        boot_limits    = { "m7i.large" = 86400 }
      }
    }
  }
  expect_failures = [var.accounts]
}

run "fallback_to_a_foreign_region" {
  command = plan
  variables {
    accounts = {
      "222222222222" = {
        owners           = [{ id = "1", name = "acme" }]
        regions          = { eu-west-2 = { subnets = ["subnet-0a"], images = ["ami-0a"] } }
        instance_types   = ["m7i.large"]
        fallback_regions = ["us-east-1"]
      }
    }
  }
  expect_failures = [var.accounts]
}

run "tenancy_unknown" {
  command = plan
  variables {
    accounts = {
      "222222222222" = {
        owners         = [{ id = "1", name = "acme" }]
        regions        = { eu-west-2 = { subnets = ["subnet-0a"], images = ["ami-0a"] } }
        instance_types = ["m7i.large"]
        tenancy        = "host"
      }
    }
  }
  expect_failures = [var.accounts]
}

run "budget_of_nothing" {
  command = plan
  variables {
    accounts = {
      "222222222222" = {
        owners         = [{ id = "1", name = "acme" }]
        regions        = { eu-west-2 = { subnets = ["subnet-0a"], images = ["ami-0a"] } }
        instance_types = ["m7i.large"]
        daily_budget   = { usd = "0.00" }
      }
    }
  }
  expect_failures = [var.accounts]
}

run "default_region_elsewhere" {
  command = plan
  variables {
    accounts = {
      "222222222222" = {
        owners         = [{ id = "1", name = "acme" }]
        regions        = { eu-west-2 = { subnets = ["subnet-0a"], images = ["ami-0a"] } }
        instance_types = ["m7i.large"]
        default_region = "eu-west-1"
      }
    }
  }
  expect_failures = [var.accounts]
}

run "default_type_not_allowed" {
  command = plan
  variables {
    accounts = {
      "222222222222" = {
        owners                 = [{ id = "1", name = "acme" }]
        regions                = { eu-west-2 = { subnets = ["subnet-0a"], images = ["ami-0a"] } }
        instance_types         = ["m7i.large"]
        default_instance_types = ["m7i.xlarge"]
      }
    }
  }
  expect_failures = [var.accounts]
}

run "market_unknown" {
  command = plan
  variables {
    accounts = {
      "222222222222" = {
        owners         = [{ id = "1", name = "acme" }]
        regions        = { eu-west-2 = { subnets = ["subnet-0a"], images = ["ami-0a"] } }
        instance_types = ["m7i.large"]
        markets        = ["reserved"]
      }
    }
  }
  expect_failures = [var.accounts]
}

run "mode_unknown" {
  command = plan
  variables {
    accounts = {
      "222222222222" = {
        owners         = [{ id = "1", name = "acme" }]
        regions        = { eu-west-2 = { subnets = ["subnet-0a"], images = ["ami-0a"] } }
        instance_types = ["m7i.large"]
        modes          = ["forever"]
      }
    }
  }
  expect_failures = [var.accounts]
}

run "no_runner_allowed" {
  command = plan
  variables {
    accounts = {
      "222222222222" = {
        owners         = [{ id = "1", name = "acme" }]
        regions        = { eu-west-2 = { subnets = ["subnet-0a"], images = ["ami-0a"] } }
        instance_types = ["m7i.large"]
        max_runners    = 0
      }
    }
  }
  expect_failures = [var.accounts]
}

run "open_requests_that_nobody_counts" {
  command = plan
  variables {
    accounts = {
      "222222222222" = {
        owners            = [{ id = "1", name = "acme" }]
        regions           = { eu-west-2 = { subnets = ["subnet-0a"], images = ["ami-0a"] } }
        instance_types    = ["m7i.large"]
        max_open_requests = 25001
      }
    }
  }
  expect_failures = [var.accounts]
}

run "scope_of_an_enterprise" {
  command = plan
  variables {
    accounts = {
      "222222222222" = {
        owners         = [{ id = "1", name = "acme" }]
        regions        = { eu-west-2 = { subnets = ["subnet-0a"], images = ["ami-0a"] } }
        instance_types = ["m7i.large"]
        scope          = { kind = "enterprise", id = "1", name = "acme", runner_group = "garo" }
        modes          = ["ephemeral"]
      }
    }
  }
  expect_failures = [var.accounts]
}

run "scope_with_the_default_group" {
  command = plan
  variables {
    accounts = {
      "222222222222" = {
        owners         = [{ id = "1", name = "acme" }]
        regions        = { eu-west-2 = { subnets = ["subnet-0a"], images = ["ami-0a"] } }
        instance_types = ["m7i.large"]
        scope          = { kind = "organization", id = "1", name = "acme", runner_group = "Default" }
        modes          = ["ephemeral"]
      }
    }
  }
  expect_failures = [var.accounts]
}

run "scope_with_shared_runners" {
  command = plan
  variables {
    accounts = {
      "222222222222" = {
        owners         = [{ id = "1", name = "acme" }]
        regions        = { eu-west-2 = { subnets = ["subnet-0a"], images = ["ami-0a"] } }
        instance_types = ["m7i.large"]
        scope          = { kind = "organization", id = "1", name = "acme", runner_group = "garo" }
      }
    }
  }
  expect_failures = [var.accounts]
}

run "scope_of_another_owner" {
  command = plan
  variables {
    accounts = {
      "222222222222" = {
        owners         = [{ id = "1", name = "acme" }]
        regions        = { eu-west-2 = { subnets = ["subnet-0a"], images = ["ami-0a"] } }
        instance_types = ["m7i.large"]
        scope          = { kind = "organization", id = "2", name = "other", runner_group = "garo" }
        modes          = ["ephemeral"]
      }
    }
  }
  expect_failures = [var.accounts]
}

run "event_that_is_allowed_anyway" {
  command = plan
  variables {
    accounts = {
      "222222222222" = {
        owners         = [{ id = "1", name = "acme" }]
        regions        = { eu-west-2 = { subnets = ["subnet-0a"], images = ["ami-0a"] } }
        instance_types = ["m7i.large"]
        allow          = { events = ["push"] }
      }
    }
  }
  expect_failures = [var.accounts]
}

run "hard_above_a_day" {
  command = plan
  variables {
    accounts = {
      "222222222222" = {
        owners         = [{ id = "1", name = "acme" }]
        regions        = { eu-west-2 = { subnets = ["subnet-0a"], images = ["ami-0a"] } }
        instance_types = ["m7i.large"]
        hard           = 86401
      }
    }
  }
  expect_failures = [var.accounts]
}

run "app_without_installation" {
  command = plan
  variables {
    accounts = {
      "222222222222" = {
        owners         = [{ id = "1", name = "acme" }]
        regions        = { eu-west-2 = { subnets = ["subnet-0a"], images = ["ami-0a"] } }
        instance_types = ["m7i.large"]
        github         = { app_id = 1 }
      }
    }
  }
  expect_failures = [var.accounts]
}

run "further_app_without_installation" {
  command = plan
  variables {
    accounts = {
      "222222222222" = {
        owners         = [{ id = "1", name = "acme" }]
        regions        = { eu-west-2 = { subnets = ["subnet-0a"], images = ["ami-0a"] } }
        instance_types = ["m7i.large"]
        more_github    = [{ parameter = "/app/two", app_id = 1 }]
      }
    }
  }
  expect_failures = [var.accounts]
}

run "six_credentials" {
  command = plan
  variables {
    accounts = {
      "222222222222" = {
        owners         = [{ id = "1", name = "acme" }]
        regions        = { eu-west-2 = { subnets = ["subnet-0a"], images = ["ami-0a"] } }
        instance_types = ["m7i.large"]
        more_github    = [for n in range(5) : { parameter = "/app/${n}" }]
      }
    }
  }
  expect_failures = [var.accounts]
}

run "two_credentials_in_one_parameter" {
  command = plan
  variables {
    accounts = {
      "222222222222" = {
        owners         = [{ id = "1", name = "acme" }]
        regions        = { eu-west-2 = { subnets = ["subnet-0a"], images = ["ami-0a"] } }
        instance_types = ["m7i.large"]
        more_github    = [{ parameter = "/github/runner/pat" }]
      }
    }
  }
  expect_failures = [var.accounts]
}

run "app_named_twice" {
  command = plan
  variables {
    accounts = {
      "222222222222" = {
        owners         = [{ id = "1", name = "acme" }]
        regions        = { eu-west-2 = { subnets = ["subnet-0a"], images = ["ami-0a"] } }
        instance_types = ["m7i.large"]
        github         = { parameter = "/app/one", app_id = 1, installation_id = 2 }
        more_github    = [{ parameter = "/app/two", app_id = 1, installation_id = 3 }]
      }
    }
  }
  expect_failures = [var.accounts]
}

run "role_by_name" {
  command = plan
  variables {
    accounts = {
      "222222222222" = {
        owners         = [{ id = "1", name = "acme" }]
        regions        = { eu-west-2 = { subnets = ["subnet-0a"], images = ["ami-0a"] } }
        instance_types = ["m7i.large"]
        role_arn       = "GitHubRunnerAssumeRole"
      }
    }
  }
  expect_failures = [var.accounts]
}

run "operator_with_a_token" {
  command = plan
  variables {
    operators = { ann = "garo_op_1234" }
  }
  expect_failures = [var.operators]
}

run "three_keys" {
  command = plan
  variables {
    key_ids = ["k3", "k2", "k1"]
  }
  expect_failures = [var.key_ids]
}

run "key_id_with_a_hyphen" {
  command = plan
  variables {
    key_ids = ["k-1"]
  }
  expect_failures = [var.key_ids]
}

run "parameters_without_slash" {
  command = plan
  variables {
    parameters = "garo"
  }
  expect_failures = [var.parameters]
}

run "parameters_of_aws" {
  command = plan
  variables {
    parameters = "/aws/garo"
  }
  expect_failures = [var.parameters]
}

run "issuer_with_a_slash_at_its_end" {
  command = plan
  variables {
    oidc_issuers = ["https://token.actions.githubusercontent.com/"]
  }
  expect_failures = [var.oidc_issuers]
}

run "prices_url_without_tls" {
  command = plan
  variables {
    prices_url = "http://mirror.example.org/aws-prices"
  }
  expect_failures = [var.prices_url]
}

run "github_url_without_tls" {
  command = plan
  variables {
    github_url = "http://github.example.org/api/v3"
  }
  expect_failures = [var.github_url]
}

run "runner_program_without_digest" {
  command = plan
  variables {
    runner_programs = { arm64 = { version = "2.330.0", url = "https://example.org/r.tar.gz", sha256 = "" } }
  }
  expect_failures = [var.runner_programs]
}

run "domain_as_url" {
  command = plan
  variables {
    domain = { name = "https://garo.example.org", certificate_arn = "arn:aws:acm:eu-west-2:111111111111:certificate/1" }
  }
  expect_failures = [var.domain]
}

run "domain_without_certificate" {
  command = plan
  variables {
    domain = { name = "garo.example.org", certificate_arn = "certificate" }
  }
  expect_failures = [var.domain]
}

run "throttle_of_nothing" {
  command = plan
  variables {
    throttling = { "POST /start" = { rate = 0, burst = 1 } }
  }
  expect_failures = [var.throttling]
}

run "throttle_of_no_route" {
  command = plan
  variables {
    throttling = { "POST /begin" = { rate = 1, burst = 1 } }
  }
  expect_failures = [var.throttling]
}

run "more_shards_than_a_credential_has_deletions" {
  command = plan
  variables {
    reaper_shards = 17
  }
  expect_failures = [var.reaper_shards]
}

run "memory_too_small" {
  command = plan
  variables {
    memory_mb = { api = 64 }
  }
  expect_failures = [var.memory_mb]
}

run "worker_held_below_its_queue" {
  command = plan
  variables {
    reserved_concurrency = { worker = 2 }
  }
  expect_failures = [var.reserved_concurrency]
}

run "log_level_unknown" {
  command = plan
  variables {
    log_level = "trace"
  }
  expect_failures = [var.log_level]
}

run "retention_unknown" {
  command = plan
  variables {
    log_retention_days = 31
  }
  expect_failures = [var.log_retention_days]
}

run "kms_key_by_alias" {
  command = plan
  variables {
    kms_key_arn = "alias/garo"
  }
  expect_failures = [var.kms_key_arn]
}

run "boundary_by_name" {
  command = plan
  variables {
    permissions_boundary = "Boundary"
  }
  expect_failures = [var.permissions_boundary]
}

run "email_without_host" {
  command = plan
  variables {
    alarm_emails = ["ops"]
  }
  expect_failures = [var.alarm_emails]
}

run "tag_of_machines" {
  command = plan
  variables {
    tags = { "garo:control-plane" = "other" }
  }
  expect_failures = [var.tags]
}

run "table_with_a_slash" {
  command = plan
  variables {
    table = "garo/restored"
  }
  expect_failures = [var.table]
}

run "vpc_without_subnets" {
  command = plan
  variables {
    vpc = { subnets = [], security_groups = ["sg-0a"] }
  }
  expect_failures = [var.vpc]
}

run "vpc_by_names" {
  command = plan
  variables {
    vpc = { subnets = ["subnet-0a"], security_groups = ["default"] }
  }
  expect_failures = [var.vpc]
}

run "offer_of_both_kinds" {
  command = plan
  variables {
    accounts = {
      "222222222222" = {
        owners         = [{ id = "1", name = "acme" }]
        regions        = { eu-west-2 = { subnets = ["subnet-0a"], images = ["ami-0a"] } }
        instance_types = ["m7i.large"]
        runs_on        = [{ labels = ["garo"], pin = "g-" }]
      }
    }
  }
  expect_failures = [var.accounts]
}

run "offer_in_upper_case" {
  command = plan
  variables {
    accounts = {
      "222222222222" = {
        owners         = [{ id = "1", name = "acme" }]
        regions        = { eu-west-2 = { subnets = ["subnet-0a"], images = ["ami-0a"] } }
        instance_types = ["m7i.large"]
        runs_on        = [{ labels = ["Garo"] }]
      }
    }
  }
  expect_failures = [var.accounts]
}

run "short_webhook_secret" {
  command = plan
  variables {
    webhook_secrets = { "222222222222" = ["short"] }
  }
  expect_failures = [var.webhook_secrets]
}
