# What the module refuses.
mock_provider "aws" {
  source = "../../tests/mocks"
}

run "wrong_name" {
  command = plan
  variables {
    name = "-garo"
  }
  expect_failures = [var.name]
}

run "wrong_images" {
  command = plan
  variables {
    images = { debian = ["amd64"] }
  }
  expect_failures = [var.images]
}

run "wrong_agents" {
  command = plan
  variables {
    agents = { arm64 = { url = "http://garo.example.org/agent", sha256 = "x" } }
  }
  expect_failures = [var.agents]
}

run "wrong_extra_packages" {
  command = plan
  variables {
    extra_packages = { al2023 = ["nodejs; rm"] }
  }
  expect_failures = [var.extra_packages]
}

run "wrong_size_gb" {
  command = plan
  variables {
    size_gb = 4
  }
  expect_failures = [var.size_gb]
}

run "wrong_keep" {
  command = plan
  variables {
    keep = 1
  }
  expect_failures = [var.keep]
}

run "wrong_schedule" {
  command = plan
  variables {
    schedule = "weekly"
  }
  expect_failures = [var.schedule]
}

run "wrong_security_group_ids" {
  command = plan
  variables {
    subnet_id = "subnet-0a"
  }
  expect_failures = [var.security_group_ids]
}
