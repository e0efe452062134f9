package ec2fleet

// SetPageSize makes List ask for pages of n, so that a test needs few instances.
func (f *Fleet) SetPageSize(n int32) { f.pageSize = n }

// Tidy makes EC2's words fit for records.
var Tidy = tidy
