package dynamostore_test

import (
	"testing"

	"github.com/alphagov/github-actions-runner-orchestration/store/dynamostore"
)

// BenchmarkEncode writes what the golden file of a runner holds.
func BenchmarkEncode(b *testing.B) {
	s := online(b, "abcdefghijklmnopqrstuvwxya", noon)
	b.ReportAllocs()
	for b.Loop() {
		if _, err := dynamostore.ItemOf(&s.runner); err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkDecode reads it.
func BenchmarkDecode(b *testing.B) {
	s := online(b, "abcdefghijklmnopqrstuvwxya", noon)
	item, err := dynamostore.ItemOf(&s.runner)
	if err != nil {
		b.Fatal(err)
	}
	b.ReportAllocs()
	for b.Loop() {
		if _, err := dynamostore.ItemFrom(s.runner.Ref(), item); err != nil {
			b.Fatal(err)
		}
	}
}
