# All images of the module, whole.
mock_provider "aws" {
  source = "../../tests/mocks"
}

run "rendered" {
  command = plan
  variables {
    images         = { al2023 = ["amd64", "arm64"], "ubuntu-24.04" = ["amd64", "arm64"] }
    extra_packages = { al2023 = ["nodejs"] }
    keep           = 2
  }

  assert {
    condition     = toset(keys(aws_imagebuilder_image_pipeline.this)) == toset(["al2023-amd64", "al2023-arm64", "ubuntu-24.04-amd64", "ubuntu-24.04-arm64"])
    error_message = "Each image has a pipeline."
  }
  assert {
    condition     = alltrue([for key, r in aws_imagebuilder_image_recipe.this : endswith(r.parent_image, key == "al2023-amd64" ? ":aws:image/amazon-linux-2023-x86/x.x.x" : key == "al2023-arm64" ? ":aws:image/amazon-linux-2023-arm64/x.x.x" : key == "ubuntu-24.04-amd64" ? ":aws:image/ubuntu-server-24-lts-x86/x.x.x" : ":aws:image/ubuntu-server-24-lts-arm64/x.x.x")])
    error_message = "Each image is of the newest base image of its system and architecture."
  }
  assert {
    condition     = alltrue([for r in aws_imagebuilder_image_recipe.this : one(r.block_device_mapping).ebs[0].encrypted == "true"])
    error_message = "Images are encrypted."
  }
  assert {
    condition     = aws_imagebuilder_infrastructure_configuration.this["al2023-arm64"].instance_types == toset(["m7g.large"]) && aws_imagebuilder_infrastructure_configuration.this["ubuntu-24.04-amd64"].instance_types == toset(["m7i.large"])
    error_message = "An image is built on its own architecture."
  }
  assert {
    condition     = alltrue([for i in aws_imagebuilder_infrastructure_configuration.this : one(i.instance_metadata_options).http_tokens == "required"])
    error_message = "The machine that builds takes IMDSv2 alone."
  }
  assert {
    condition     = strcontains(aws_imagebuilder_component.this["al2023-arm64"].data, filebase64("install.sh")) && strcontains(aws_imagebuilder_component.this["al2023-arm64"].data, "EXTRA_PACKAGES='nodejs'")
    error_message = "The component runs the script, with the packages."
  }
  assert {
    condition     = alltrue([for p in aws_imagebuilder_image_pipeline.this : one(p.schedule).schedule_expression == "cron(0 3 ? * sun *)" && one(p.schedule).pipeline_execution_start_condition == "EXPRESSION_MATCH_ONLY"])
    error_message = "Images are built each week, whatever is new."
  }
  assert {
    condition     = alltrue([for l in aws_imagebuilder_lifecycle_policy.this : one(one(l.policy_detail).filter).value == 2 && one(one(one(l.policy_detail).action).include_resources).snapshots])
    error_message = "Old images are deleted with their snapshots."
  }
  assert {
    condition     = output.parameters["ubuntu-24.04-arm64"] == "/garo/images/ubuntu-24.04/arm64"
    error_message = "A registration can name the parameter of each image."
  }
}
