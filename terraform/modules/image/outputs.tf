output "parameters" {
  description = "The SSM paths that `images` of a registration's region name, by os and architecture: such as parameters[\"al2023-arm64\"]. They are there after the first run."
  value       = { for key, image in local.images : key => "/${var.name}/images/${image.os}/${image.arch}" }
}

output "pipelines" {
  description = "The ARNs of the pipelines, to start the first run with: aws imagebuilder start-image-pipeline-execution --image-pipeline-arn ARN."
  value       = { for key, pipeline in aws_imagebuilder_image_pipeline.this : key => pipeline.arn }
}
