package awstest

// Partition is one of AWS's clouds that know nothing of each other.
type Partition struct {
	Name    string // as ARNs have it
	Suffix  string // of its hosts' names
	Regions []string
}

// Partitions has all of them, with all of their regions (aws-sdk-go-v2 1.47.7,
// internal/endpoints/awsrulesfn/partitions.json).
var Partitions = []Partition{
	{"aws", "amazonaws.com", []string{
		"af-south-1", "ap-east-1", "ap-east-2", "ap-northeast-1", "ap-northeast-2", "ap-northeast-3", "ap-south-1", "ap-south-2",
		"ap-southeast-1", "ap-southeast-2", "ap-southeast-3", "ap-southeast-4", "ap-southeast-5", "ap-southeast-6", "ap-southeast-7",
		"ca-central-1", "ca-west-1", "eu-central-1", "eu-central-2", "eu-north-1", "eu-south-1", "eu-south-2", "eu-west-1", "eu-west-2",
		"eu-west-3", "il-central-1", "me-central-1", "me-south-1", "mx-central-1", "sa-east-1", "us-east-1", "us-east-2", "us-west-1", "us-west-2",
	}},
	{"aws-cn", "amazonaws.com.cn", []string{"cn-north-1", "cn-northwest-1"}},
	{"aws-eusc", "amazonaws.eu", []string{"eusc-de-east-1"}},
	{"aws-iso", "c2s.ic.gov", []string{"us-iso-east-1", "us-iso-west-1"}},
	{"aws-iso-b", "sc2s.sgov.gov", []string{"us-isob-east-1", "us-isob-west-1"}},
	{"aws-iso-e", "cloud.adc-e.uk", []string{"eu-isoe-west-1"}},
	{"aws-iso-f", "csp.hci.ic.gov", []string{"us-isof-east-1", "us-isof-south-1"}},
	{"aws-us-gov", "amazonaws.com", []string{"us-gov-east-1", "us-gov-west-1"}},
}
