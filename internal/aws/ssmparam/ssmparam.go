// Package ssmparam reads what GARO keeps in SSM's parameter store, all of it
// SecureStrings: in the control plane's account the registrations of accounts, the
// operators and the keys; in runner accounts, by the Reader that is handed their
// credentials, what a registration names there.
//
// It promises that a parameter is taken whole or not at all: one that is not
// exactly as it has to be is an error that names the parameter and the fault,
// never its content, and every other parameter is still read. It keeps what
// it reads for five minutes, and serves it for an hour while SSM does not answer.
// It contains neither STS nor EC2.
package ssmparam

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/ssm"

	"github.com/alphagov/github-actions-runner-orchestration/internal/aws/flight"
	"github.com/alphagov/github-actions-runner-orchestration/internal/form"
	"github.com/alphagov/github-actions-runner-orchestration/internal/keys"
	"github.com/alphagov/github-actions-runner-orchestration/internal/secret"
	"github.com/alphagov/github-actions-runner-orchestration/store"
)

// Config is what Parameters are made of.
type Config struct {
	// AWS has region, credentials and HTTP client of the control plane. Its retryer
	// is used: a read changes nothing.
	AWS aws.Config
	// Prefix is the path that all parameters are under, such as /garo, without a
	// slash at its end.
	Prefix string
	Now    func() time.Time // nil: time.Now
	Log    *slog.Logger     // nil: none
}

// Parameters are those of the control plane. They are a store.Accounts. They are
// safe for concurrent use.
type Parameters struct {
	prefix string
	reader *Reader
	list   func(ctx context.Context, in *ssm.GetParametersByPathInput, opts ...func(*ssm.Options)) (*ssm.GetParametersByPathOutput, error)
	ids    flight.Cache[struct{}, listing]
	now    func() time.Time
	log    *slog.Logger

	scripts flight.Cache[string, []byte] // by path

	mu   sync.Mutex
	told map[string]int64 // the version of each bad parameter that was logged
}

// New returns Parameters. It reads none.
func New(cfg Config) *Parameters {
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	client := ssm.NewFromConfig(cfg.AWS)
	return &Parameters{
		prefix: cfg.Prefix,
		reader: NewReader(client.GetParameter, cfg.Now, cfg.Log),
		list:   client.GetParametersByPath,
		ids:    flight.Cache[struct{}, listing]{Now: cfg.Now, Keep: staleFor},

		scripts: flight.Cache[string, []byte]{Now: cfg.Now, Keep: keepFor},
		now:     cfg.Now,
		log:     cfg.Log,
		told:    map[string]int64{},
	}
}

// maxKeys is how many rotated keys are live: the one that signs, and during a
// rotation the one that comes or goes.
const maxKeys = 2

// Keys reads the control plane's keys, <prefix>/keys:
//
//	{"id": "<K_id>", "current": "k1", "keys": {"k1": "<K_kid>", "k0": "<K_kid>"}}
//
// All are in one parameter so that each step of a rotation is one write;
// docs/operate.md has the steps. A program that keeps the Ring sees none of them.
func (p *Parameters) Keys(ctx context.Context) (*keys.Ring, error) {
	name := p.prefix + "/keys"
	got, err := p.reader.read(ctx, name, false)
	if err != nil {
		return nil, err
	}
	var doc struct {
		ID      secret.Text            `json:"id"`
		Current string                 `json:"current"`
		Keys    map[string]secret.Text `json:"keys"`
	}
	if err := decode(got.text, &doc); err != nil {
		return nil, fmt.Errorf("parameter %s: %w", name, err)
	}
	if len(doc.Keys) > maxKeys {
		return nil, fmt.Errorf("parameter %s: %d keys, want one, or during a rotation %d", name, len(doc.Keys), maxKeys)
	}
	ring, err := keys.NewRing(doc.ID, doc.Current, doc.Keys)
	if err != nil {
		return nil, fmt.Errorf("parameter %s: %w", name, err)
	}
	return ring, nil
}

var operatorForm = form.Form{{Of: form.Letter + form.Digit + "@@..__--", Min: 1, Max: 64}}

// Operators reads the hashes of operators' tokens by the operators' names,
// <prefix>/operators:
//
//	{"ann": "<keys.HashToken of her token>"}
//
// Without the parameter there are none.
func (p *Parameters) Operators(ctx context.Context) (map[string]string, error) {
	name := p.prefix + "/operators"
	got, err := p.reader.read(ctx, name, false)
	if errors.Is(err, ErrNoParameter) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	var doc map[string]string
	if err := decode(got.text, &doc); err != nil {
		return nil, fmt.Errorf("parameter %s: %w", name, err)
	}
	var faults []error
	for _, who := range slices.Sorted(maps.Keys(doc)) {
		if !operatorForm.Fits(who) {
			faults = append(faults, fmt.Errorf("name %.64q: want 1 to 64 of letters, digits and @._-", who))
		}
		if !form.SHA256.Fits(doc[who]) {
			faults = append(faults, fmt.Errorf("%.64q: want the SHA-256 of the token, 64 digits of lower-case hex", who))
		}
	}
	if len(faults) > 0 {
		return nil, fmt.Errorf("parameter %s: %w", name, errors.Join(faults...))
	}
	return doc, nil
}

// WebhookSecrets reads what a GitHub App signs its webhooks with, <prefix>/webhook:
//
//	{"secrets": ["<the App's webhook secret>"]}
//
// There are two while one replaces the other, and none without the parameter.
func (p *Parameters) WebhookSecrets(ctx context.Context) ([]secret.Text, error) {
	name := p.prefix + "/webhook"
	got, err := p.reader.read(ctx, name, false)
	if errors.Is(err, ErrNoParameter) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	var doc struct {
		Secrets []secret.Text `json:"secrets"`
	}
	if err := decode(got.text, &doc); err != nil {
		return nil, fmt.Errorf("parameter %s: %w", name, err)
	}
	if err := store.CheckWebhookSecrets(doc.Secrets); err != nil || len(doc.Secrets) == 0 {
		return nil, fmt.Errorf("parameter %s: secrets: %w", name, cmp.Or(err, errors.New("want one, or two while one replaces the other")))
	}
	return doc.Secrets, nil
}

// decode reads one JSON object strictly. Its errors name fields and places, never
// what stands there.
func decode(text secret.Text, doc any) error {
	b := []byte(text.Reveal())
	if !strings.HasPrefix(strings.TrimSpace(text.Reveal()), "{") {
		return errors.New("want a JSON object")
	}
	d := json.NewDecoder(bytes.NewReader(b))
	d.DisallowUnknownFields()
	if err := d.Decode(doc); err != nil {
		return err
	}
	if _, err := d.Token(); err != io.EOF {
		return errors.New("more than one JSON value")
	}
	return nil
}
