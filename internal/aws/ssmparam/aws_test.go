package ssmparam_test

import (
	"errors"
	"slices"
	"testing"

	"github.com/aws/aws-sdk-go-v2/service/ssm"
	"github.com/aws/aws-sdk-go-v2/service/ssm/types"

	"github.com/alphagov/github-actions-runner-orchestration/internal/aws/ssmparam"
	"github.com/alphagov/github-actions-runner-orchestration/internal/keys"
	"github.com/alphagov/github-actions-runner-orchestration/internal/test/awstest"
	"github.com/alphagov/github-actions-runner-orchestration/store"
)

// TestEverythingIsReadFromSSM needs a server that speaks SSM's protocol as AWS
// does, SecureStrings and pages included.
func TestEverythingIsReadFromSSM(t *testing.T) {
	cfg := awstest.Config(t, awstest.Moto(t), "eu-west-2", "999999999999")
	client := ssm.NewFromConfig(cfg)
	put := func(name, value string) {
		t.Helper()
		_, err := client.PutParameter(t.Context(), &ssm.PutParameterInput{
			Name: &name, Value: &value, Type: types.ParameterTypeSecureString, Overwrite: new(true),
		})
		if err != nil {
			t.Fatalf("PutParameter %s: %v", name, err)
		}
	}
	var want []string
	for n := range 11 { // one more than a page has
		id := "33333333330" + string(rune('0'+n%10))
		if n == 10 {
			id = one
		}
		put("/garo/accounts/"+id, registration(id))
		want = append(want, id)
	}
	slices.Sort(want)
	put("/garo/operators", `{"ann": "`+keys.HashToken("garo_op_x")+`"}`)
	put("/garo/keys", `{"id": "`+key("i")+`", "current": "k1", "keys": {"k1": "`+key("1")+`", "k0": "`+key("0")+`"}}`)
	put("/other/accounts/"+two, registration(two))

	p := ssmparam.New(ssmparam.Config{AWS: cfg, Prefix: "/garo"})
	if a, err := p.Account(t.Context(), one); err != nil || a.ID != one || !a.ExternalID.Equal("canary-external-id") {
		t.Errorf("Account = %+v, %v; want the registration, decrypted", a, err)
	}
	if _, err := p.Account(t.Context(), two); !errors.Is(err, store.ErrNoAccount) {
		t.Errorf("Account of another control plane = %v, want that it is not registered", err)
	}
	if ids, err := p.List(t.Context()); err != nil || !slices.Equal(ids, want) {
		t.Errorf("List = %v, %v; want %v", ids, err, want)
	}
	if got, err := p.Operators(t.Context()); err != nil || got["ann"] != keys.HashToken("garo_op_x") {
		t.Errorf("Operators = %v, %v; want ann", got, err)
	}
	if ring, err := p.Keys(t.Context()); err != nil || ring.Current() != "k1" {
		t.Errorf("Keys = %v, %v; want a ring", ring, err)
	}
}
