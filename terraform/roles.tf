# One role for each function, with what its program calls and nothing else. The
# right to launch or end a machine is in no role here: worker and reaper borrow it
# from the account's own role, which modules/account makes.
locals {
  table_calls = ["dynamodb:BatchGetItem", "dynamodb:ConditionCheckItem", "dynamodb:GetItem", "dynamodb:PutItem"]
  parameter   = "arn:${local.partition}:ssm:${local.region}:${local.account}:parameter${local.parameters}"

  statements = {
    table = { Sid = "Table", Effect = "Allow", Action = local.table_calls, Resource = aws_dynamodb_table.this.arn }
    send  = { Sid = "Send", Effect = "Allow", Action = "sqs:SendMessage", Resource = aws_sqs_queue.this.arn }
    log = {
      Sid      = "Log"
      Effect   = "Allow"
      Action   = ["logs:CreateLogStream", "logs:PutLogEvents"]
      Resource = "${aws_cloudwatch_log_group.functions.arn}:*"
    }
    keys = { Sid = "Keys", Effect = "Allow", Action = "ssm:GetParameter", Resource = "${local.parameter}/keys" }
    registrations = {
      Sid      = "Registrations"
      Effect   = "Allow"
      Action   = ["ssm:GetParameter", "ssm:GetParametersByPath"]
      Resource = ["${local.parameter}/accounts", "${local.parameter}/accounts/*"]
    }
    setup     = { Sid = "Setup", Effect = "Allow", Action = "ssm:GetParametersByPath", Resource = "${local.parameter}/setup/*" }
    operators = { Sid = "Operators", Effect = "Allow", Action = "ssm:GetParameter", Resource = "${local.parameter}/operators" }
    webhook   = { Sid = "Webhook", Effect = "Allow", Action = "ssm:GetParameter", Resource = "${local.parameter}/webhook" }
    lists = {
      Sid      = "Lists"
      Effect   = "Allow"
      Action   = "dynamodb:Query"
      Resource = ["${aws_dynamodb_table.this.arn}/index/list", "${aws_dynamodb_table.this.arn}/index/repository"]
    }
    find = { Sid = "Find", Effect = "Allow", Action = "dynamodb:Query", Resource = "${aws_dynamodb_table.this.arn}/index/find" }
    due  = { Sid = "Due", Effect = "Allow", Action = "dynamodb:Query", Resource = "${aws_dynamodb_table.this.arn}/index/due" }
    receive = {
      Sid      = "Receive"
      Effect   = "Allow"
      Action   = ["sqs:DeleteMessage", "sqs:GetQueueAttributes", "sqs:ReceiveMessage"]
      Resource = aws_sqs_queue.this.arn
    }
  }

  # Only the roles of registered accounts; without an account there is no statement.
  borrow = [for roles in [sort(values(local.roles))] : {
    Sid      = "Borrow"
    Effect   = "Allow"
    Action   = ["sts:AssumeRole", "sts:SetSourceIdentity"]
    Resource = roles
  } if length(roles) > 0]

  # What DynamoDB asks of anyone who uses its tables
  # (https://docs.aws.amazon.com/amazondynamodb/latest/developerguide/encryption.usagenotes.html),
  # and thereby what the others ask: SQS the data key, Lambda and SSM to decrypt.
  decrypt = [for key in [var.kms_key_arn] : {
    Sid      = "Decrypt"
    Effect   = "Allow"
    Action   = ["kms:Decrypt", "kms:DescribeKey", "kms:Encrypt", "kms:GenerateDataKey", "kms:ReEncryptFrom", "kms:ReEncryptTo"]
    Resource = key
    Condition = { StringEquals = { "kms:ViaService" = flatten([
      # In China as its hosts; in others as in the commercial partition, or as their hosts.
      for suffix in distinct([local.partition == "aws-cn" ? "amazonaws.com.cn" : "amazonaws.com", data.aws_partition.current.dns_suffix]) :
      [for service in ["dynamodb", "lambda", "sqs", "ssm"] : "${service}.${local.region}.${suffix}"]
    ]) } }
  } if key != null]

  # What Lambda does for a function in a VPC, with the function's role
  # (https://docs.aws.amazon.com/lambda/latest/dg/configuration-vpc.html). The code
  # of the function cannot: its own calls have a source function.
  interfaces = [for vpc in [var.vpc] : {
    Sid    = "Interfaces"
    Effect = "Allow"
    Action = [
      "ec2:AssignPrivateIpAddresses", "ec2:CreateNetworkInterface", "ec2:DeleteNetworkInterface",
      "ec2:DescribeNetworkInterfaces", "ec2:DescribeSubnets", "ec2:UnassignPrivateIpAddresses",
    ]
    Resource  = "*"
    Condition = { Null = { "lambda:SourceFunctionArn" = "true" } }
  } if vpc != null]

  # X-Ray's two calls know no resource.
  trace = [for on in [var.tracing] : {
    Sid      = "Trace"
    Effect   = "Allow"
    Action   = ["xray:PutTelemetryRecords", "xray:PutTraceSegments"]
    Resource = "*"
  } if on]

  always = concat(
    [local.statements.log, local.statements.table, local.statements.send, local.statements.registrations],
    local.decrypt, local.interfaces, local.trace,
  )

  policies = {
    api = concat(local.always, [local.statements.keys, local.statements.operators, local.statements.webhook, local.statements.setup, local.statements.lists, local.statements.find])
    # The worker reads the lists for garo doctor: what EC2 refused lately.
    worker = concat(local.always, [local.statements.keys, local.statements.receive, local.statements.lists], local.borrow)
    # The reaper opens with the keys what the table keeps of a registration that is gone.
    reaper = concat(local.always, [local.statements.keys, local.statements.due, local.statements.lists], local.borrow)
  }
}

resource "aws_iam_role" "function" {
  for_each = local.functions

  name                 = "${var.name}-${each.key}"
  description          = each.value.description
  permissions_boundary = var.permissions_boundary
  tags                 = local.tags
  assume_role_policy = jsonencode({
    Version = "2012-10-17"
    Statement = [{
      Effect    = "Allow"
      Action    = "sts:AssumeRole"
      Principal = { Service = "lambda.amazonaws.com" }
    }]
  })
}

resource "aws_iam_role_policy" "function" {
  for_each = local.functions

  name   = each.key
  role   = aws_iam_role.function[each.key].name
  policy = jsonencode({ Version = "2012-10-17", Statement = local.policies[each.key] })
}

resource "aws_iam_role" "scheduler" {
  name                 = "${var.name}-scheduler"
  description          = "Runs the reaper."
  permissions_boundary = var.permissions_boundary
  tags                 = local.tags
  assume_role_policy = jsonencode({
    Version = "2012-10-17"
    Statement = [{
      Effect    = "Allow"
      Action    = "sts:AssumeRole"
      Principal = { Service = "scheduler.amazonaws.com" }
      Condition = { StringEquals = { "aws:SourceAccount" = local.account } }
    }]
  })
}

resource "aws_iam_role_policy" "scheduler" {
  name = "scheduler"
  role = aws_iam_role.scheduler.name
  policy = jsonencode({
    Version = "2012-10-17"
    Statement = [{
      Sid      = "Run"
      Effect   = "Allow"
      Action   = "lambda:InvokeFunction"
      Resource = aws_lambda_function.this["reaper"].arn
    }]
  })
}
