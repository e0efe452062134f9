package client_test

import (
	"errors"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/alphagov/github-actions-runner-orchestration/client"
	"github.com/alphagov/github-actions-runner-orchestration/client/apitype"
)

// A page may be empty and not be the last. What is not asked for is not read.
func TestIteratorsFollowEveryPage(t *testing.T) {
	pages := []func(*http.Request) (*http.Response, error){
		says(200, `{"requests":[{"id":"c"},{"id":"b"}],"after":"one"}`), says(200, `{"requests":[],"after":"two"}`), says(200, `{"requests":[{"id":"a"}]}`),
	}
	c, s := newClient(pages...)
	var got []string
	for r, err := range c.AllRequests(t.Context(), client.Query{Repository: "acme/shop", Since: time.Unix(0, 0)}) {
		if err != nil {
			t.Fatal(err)
		}
		got = append(got, r.ID)
	}
	var asked []string
	for _, a := range s.asked {
		asked = append(asked, strings.TrimPrefix(a.url, "https://garo.example.org/requests?"))
	}
	const same = "repository=acme%2Fshop&since=1970-01-01T00%3A00%3A00Z"
	if want := []string{same, "after=one&" + same, "after=two&" + same}; !slices.Equal(got, []string{"c", "b", "a"}) || !slices.Equal(asked, want) {
		t.Errorf("the iterator yields %q by %q, want c, b and a by %q", got, asked, want)
	}
}

func TestIteratorsEndWithTheirCallerAndWithErrors(t *testing.T) {
	c, s := newClient(says(200, `{"runners":[{"id":"b"},{"id":"a"}],"after":"one"}`), problem(apitype.CodeForbidden))
	for r := range c.AllRunners(t.Context(), client.Query{}) {
		if r.ID == "b" {
			break
		}
	}
	if len(s.asked) != 1 {
		t.Errorf("%d calls for the first row, want 1", len(s.asked))
	}
	c, _ = newClient(says(200, `{"runners":[{"id":"a"}],"after":"one"}`), problem(apitype.CodeForbidden))
	var rows int
	var last error
	for _, err := range c.AllRunners(t.Context(), client.Query{}) {
		if last = err; err == nil {
			rows++
		}
	}
	if rows != 1 || !errors.Is(last, client.ErrForbidden) {
		t.Errorf("%d rows and then %v, want one and then %v", rows, last, client.ErrForbidden)
	}
}
