// Package contracttest has Schemathesis call a local system in the ways that
// api/openapi.yaml allows, and in others: no answer may be a server's error, or one that
// the contract does not have. It has tests alone.
package contracttest
