// Package terraformtest holds the Terraform modules to the code that they deploy:
// the environment of each function, the table's indexes, the routes, the alarms,
// the registrations, and what each role may do. It has tests alone.
//
// The tests read what Terraform makes of the modules' own test files, which is
// kept in testdata: so they need no Terraform, and what a change of the modules
// does to the policies can be read in its diff. The golden test makes it again and
// compares; it needs Terraform, and runs when TERRAFORM says how it is called.
package terraformtest
