# One control plane, whole, as the tests in internal/test/terraformtest read it: each
# thing has an ARN of its own, so that policies can be evaluated.
mock_provider "aws" {
  source = "./tests/mocks"
}

mock_provider "random" {
  mock_resource "random_password" {
    defaults = { result = "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa" }
  }
}

override_resource {
  target = aws_dynamodb_table.this
  values = { arn = "arn:aws:dynamodb:eu-west-2:111111111111:table/garo" }
}

override_resource {
  target = aws_sqs_queue.this
  values = {
    arn = "arn:aws:sqs:eu-west-2:111111111111:garo-requests"
    id  = "https://sqs.eu-west-2.amazonaws.com/111111111111/garo-requests"
    url = "https://sqs.eu-west-2.amazonaws.com/111111111111/garo-requests"
  }
}

override_resource {
  target = aws_sqs_queue.dead
  values = {
    arn = "arn:aws:sqs:eu-west-2:111111111111:garo-requests-dead"
    id  = "https://sqs.eu-west-2.amazonaws.com/111111111111/garo-requests-dead"
    url = "https://sqs.eu-west-2.amazonaws.com/111111111111/garo-requests-dead"

    redrive_policy = "none"
  }
}

override_resource {
  target = aws_cloudwatch_log_group.functions
  values = { arn = "arn:aws:logs:eu-west-2:111111111111:log-group:/aws/lambda/garo" }
}

override_resource {
  target = aws_lambda_function.this["api"]
  values = {
    arn         = "arn:aws:lambda:eu-west-2:111111111111:function:garo-api"
    invoke_arn  = "arn:aws:apigateway:eu-west-2:lambda:path/2015-03-31/functions/arn:aws:lambda:eu-west-2:111111111111:function:garo-api/invocations"
    code_sha256 = "mTCnqtILkQsQ3Wi6RVgIO3UnNRojy2DY2aCCdhpBahs="
  }
}

override_resource {
  target = aws_lambda_function.this["worker"]
  values = {
    arn         = "arn:aws:lambda:eu-west-2:111111111111:function:garo-worker"
    code_sha256 = "mTCnqtILkQsQ3Wi6RVgIO3UnNRojy2DY2aCCdhpBahs="
  }
}

override_resource {
  target = aws_lambda_function.this["reaper"]
  values = {
    arn         = "arn:aws:lambda:eu-west-2:111111111111:function:garo-reaper"
    code_sha256 = "mTCnqtILkQsQ3Wi6RVgIO3UnNRojy2DY2aCCdhpBahs="
  }
}

run "rendered" {
  variables {
    package = {
      s3_bucket = "releases"
      sha256    = { for part in ["api", "worker", "reaper"] : part => "9930a7aad20b910b10dd68ba4558083b7527351a23cb60d8d9a082761a416a1b" }
    }
    operators       = { ann = "9930a7aad20b910b10dd68ba4558083b7527351a23cb60d8d9a082761a416a1b" }
    runner_programs = { arm64 = { version = "2.330.0", url = "https://example.org/runner.tar.gz", sha256 = "9930a7aad20b910b10dd68ba4558083b7527351a23cb60d8d9a082761a416a1b" } }
    kms_key_arn     = "arn:aws:kms:eu-west-2:111111111111:key/1"
    webhook_secrets = { "222222222222" = ["0123456789abcdef0123456789abcdef"] }
    vpc             = { subnets = ["subnet-0a"], security_groups = ["sg-0a"] }
    tracing         = true
    setup_scripts   = { build = "#!/bin/sh\ndocker ps --format '{{.ID}}'\n" }
    accounts = {
      "222222222222" = {
        owners         = [{ id = "1", name = "acme" }]
        regions        = { eu-west-2 = { subnets = ["subnet-0a"], images = ["ami-0123456789abcdef0"] } }
        instance_types = ["m7i.large"]
        runs_on        = [{ labels = ["garo"] }, { pin = "g-linux-", only = { events = ["push"] }, type = "ondemand" }]
      }
      "333333333333" = {
        role_arn               = "arn:aws:iam::333333333333:role/garo"
        repositories           = [{ id = "2", name = "acme/shop" }]
        server                 = "github.example.org"
        scope                  = { kind = "organization", id = "1", name = "acme", runner_group = "garo" }
        default_region         = "eu-west-1"
        instance_types         = ["m7i.large", "m7a.large"]
        default_instance_types = ["m7a.large"]
        markets                = ["ondemand"]
        spot_fallback          = false
        modes                  = ["ephemeral"]
        max_timeout            = 1800
        hard                   = 7200
        max_runners            = 3
        max_open_requests      = 500
        pacing                 = { burst = 2, interval_ms = 1000 }
        github                 = { parameter = "/garo/app", app_id = 1, installation_id = 2 }
        more_github            = [{ parameter = "/garo/other", app_id = 3, installation_id = 4 }, { parameter = "/garo/pat" }]
        allow                  = { public_repositories = true, events = ["issues"] }
        only                   = { refs = ["refs/heads/main"], properties = { tier = "gold" } }
        environment            = { https_proxy = "http://proxy.internal:3128" }
        max_root_volume_gb     = 200
        instance_requirements  = { vcpus = { min = 2, max = 16 }, memory_gb = { max = 64 }, arch = ["x86_64", "arm64"], gpu = { max = 1 }, exclude = ["t*"] }
        tags                   = { team = "build" }
        request_tags           = ["job"]
        spot_max_price         = "0.25"
        daily_budget           = { usd = "50", wait = true }
        cpu_credits            = "standard"
        tenancy                = "dedicated"
        boot_limit             = 400
        fallback_regions       = ["eu-west-2"]
        boot_limits            = { "m7a.large" = 600 }
        setup                  = { path = "/garo/setup/build", sha256 = "9930a7aad20b910b10dd68ba4558083b7527351a23cb60d8d9a082761a416a1b", limit = 60 }
        job_user               = { sudo = true, groups = ["docker"] }
        packages               = ["git", "docker"]
        hooks                  = { started = "/opt/hooks/started.sh" }
        instance_store         = "mount"
        jobs_role              = true
        hop_limit              = 2
        regions = {
          eu-west-1 = { subnets = ["subnet-0c"], security_groups = ["sg-0c"], images = ["/images/runner"], instance_profile = "jobs", root_volume = { size_gb = 50, type = "gp3" }, associate_public_ip = false, capacity_reservation = "open" }
          eu-west-2 = { subnets = ["subnet-0d"], images = ["ami-0123456789abcdef0"] }
        }
      }
    }
  }

  assert {
    condition     = length(aws_iam_role_policy.function) == 3
    error_message = "A function has no policy, or two."
  }
}
