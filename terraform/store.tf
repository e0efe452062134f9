locals {
  table = coalesce(var.table, var.name)
}

# The records. Indexes and attributes are those of package store/dynamostore.
resource "aws_dynamodb_table" "this" {
  #checkov:skip=CKV_AWS_119: var.kms_key_arn sets a customer key; without it the key that AWS owns costs nothing, and configs are sealed by the control plane's own keys besides
  name                        = local.table
  billing_mode                = "PAY_PER_REQUEST"
  hash_key                    = "item"
  deletion_protection_enabled = var.deletion_protection
  tags                        = local.tags

  dynamic "attribute" {
    for_each = ["item", "due", "due_at", "list", "repository_list", "open_of", "found_by", "listed_at"]
    content {
      name = attribute.value
      type = "S"
    }
  }

  # What the reaper has to look at; it reads each item itself.
  global_secondary_index {
    name            = "due"
    hash_key        = "due"
    range_key       = "due_at"
    projection_type = "KEYS_ONLY"
  }

  # All requests and all runners, for people.
  global_secondary_index {
    name               = "list"
    hash_key           = "list"
    range_key          = "listed_at"
    projection_type    = "INCLUDE"
    non_key_attributes = ["state"]
  }

  # The same of one repository.
  global_secondary_index {
    name               = "repository"
    hash_key           = "repository_list"
    range_key          = "listed_at"
    projection_type    = "INCLUDE"
    non_key_attributes = ["state"]
  }

  # The requests of one repository that wait for a runner, and no others: POST /start
  # counts them now and then. Beside them, the runners that are not over.
  global_secondary_index {
    name            = "open"
    hash_key        = "open_of"
    range_key       = "listed_at"
    projection_type = "KEYS_ONLY"
  }

  # The runner of an instance, and the requests of a workflow run.
  global_secondary_index {
    name            = "find"
    hash_key        = "found_by"
    range_key       = "listed_at"
    projection_type = "KEYS_ONLY"
  }

  ttl {
    attribute_name = "ttl"
    enabled        = true
  }

  point_in_time_recovery {
    enabled = true
  }

  # False means the key that AWS owns, not no encryption.
  server_side_encryption {
    enabled     = var.kms_key_arn != null
    kms_key_arn = var.kms_key_arn
  }
}

# Messages are hints: what is lost here, the reaper sends again. So a day is long.
resource "aws_sqs_queue" "this" {
  name = "${var.name}-requests"
  # The batch window, the worker's timeout and 15 s for the answer, rounded up: a
  # message must not come again while its worker may still be at it.
  visibility_timeout_seconds = local.batch_window_s + local.functions.worker.timeout + 15 + 1
  message_retention_seconds  = 24 * 3600
  sqs_managed_sse_enabled    = var.kms_key_arn == null ? true : null
  kms_master_key_id          = var.kms_key_arn
  tags                       = local.tags

  redrive_policy = jsonencode({
    deadLetterTargetArn = aws_sqs_queue.dead.arn
    maxReceiveCount     = 5
  })
}

# Kept as long as SQS can, for anyone who looks into it.
resource "aws_sqs_queue" "dead" {
  name                      = "${var.name}-requests-dead"
  message_retention_seconds = 14 * 24 * 3600
  sqs_managed_sse_enabled   = var.kms_key_arn == null ? true : null
  kms_master_key_id         = var.kms_key_arn
  tags                      = local.tags
}

resource "aws_sqs_queue_redrive_allow_policy" "dead" {
  queue_url = aws_sqs_queue.dead.id
  redrive_allow_policy = jsonencode({
    redrivePermission = "byQueue"
    sourceQueueArns   = [aws_sqs_queue.this.arn]
  })
}

resource "aws_sqs_queue_policy" "tls" {
  for_each = { requests = aws_sqs_queue.this, dead = aws_sqs_queue.dead }

  queue_url = each.value.id
  policy = jsonencode({
    Version = "2012-10-17"
    Statement = [{
      Sid       = "TLSOnly"
      Effect    = "Deny"
      Principal = "*"
      Action    = "sqs:*"
      Resource  = each.value.arn
      Condition = { Bool = { "aws:SecureTransport" = "false" } }
    }]
  })
}
