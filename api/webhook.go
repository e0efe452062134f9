package api

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"slices"
	"time"

	"github.com/alphagov/github-actions-runner-orchestration/client/apitype"
	"github.com/alphagov/github-actions-runner-orchestration/internal/form"
	"github.com/alphagov/github-actions-runner-orchestration/internal/secret"
	"github.com/alphagov/github-actions-runner-orchestration/internal/webhook"
	"github.com/alphagov/github-actions-runner-orchestration/store"
)

const (
	// maxDelivery bounds a delivery. Those of workflow_job have 10 to 40 KB; GitHub caps
	// all at 25 MB (https://docs.github.com/en/webhooks/webhook-events-and-payloads).
	maxDelivery = 1 << 20
	// readAgain is how soon after GitHub was last asked about a job another delivery has
	// it asked again. Deliveries that come twice, or late, cost nothing in between.
	readAgain = 30 * time.Second
	// maxJobLabels and maxJobText bound what a record keeps of a job. No runner has more
	// than a few labels, and GitHub's own names end at 255 characters.
	maxJobLabels, maxJobText = 20, 256
)

var deliveryForm = form.Form{{Of: form.Letter + form.Digit + "--", Min: 1, Max: 64}}

// webhook takes what GitHub delivers. It answers soon, since GitHub waits ten seconds and
// does not deliver again on its own: of a job that is not known yet it makes a record and a
// message, of any other at most a message. GitHub itself it never asks.
func (s *server) webhook(ctx context.Context, c *call, _ unread) (apitype.Delivered, error) {
	event := c.Header.Get(webhook.EventHeader)
	c.about("event", printable(event, maxReason))
	if id := c.Header.Get(webhook.DeliveryHeader); deliveryForm.Fits(id) {
		c.about("delivery", id)
	}
	body, err := delivered(c.Request)
	if err != nil {
		return apitype.Delivered{}, err
	}
	all, err := s.registrations(ctx)
	if err != nil {
		return apitype.Delivered{}, err
	}
	by, err := s.signer(ctx, c, body, all)
	if err != nil {
		return apitype.Delivered{}, err
	}
	d, err := webhook.Read(event, body)
	if e, ok := errors.AsType[*webhook.UnreadableError](err); ok {
		c.deny("unreadable")
		c.alarm(store.AlarmWebhook, "a delivery of GitHub's cannot be read", slog.String("event", d.Event), slog.String("field", e.Field), slog.String("error", e.Text))
		return apitype.Delivered{}, invalid(e.Field, "The delivery was signed, but this field cannot be read: %s. The operator has an alarm.", e.Text)
	}
	c.status = http.StatusAccepted
	switch {
	case d.Event == webhook.Ping:
		c.status = http.StatusOK
		return ignored(c, "pong: the signature is right")
	case d.Event == webhook.Installation && (d.Action == "suspend" || d.Action == "deleted"):
		c.alarm(store.AlarmWebhook, "the GitHub App was suspended or removed: no jobs come from there, and runners cannot be registered",
			slog.String("action", d.Action), slog.String("installation", d.Installation))
		return ignored(c, "the App's installation has ended: the operator has an alarm")
	case d.Event != webhook.WorkflowJob:
		return ignored(c, "only workflow_job is of use: remove other events from the webhook")
	}
	return s.job(ctx, c, d, by)
}

// ignored answers a delivery that nothing follows from.
func ignored(c *call, why string) (apitype.Delivered, error) {
	c.allow("ignored")
	return apitype.Delivered{Answer: apitype.DeliveryIgnored, Reason: why}, nil
}

// delivered returns the bytes of a delivery.
func delivered(r *http.Request) ([]byte, error) {
	if !isJSON(r.Header) {
		return nil, &problem{code: apitype.CodeMediaType, detail: "Set the webhook's content type to application/json, in its settings at GitHub: form encoding is not read."}
	}
	body, err := io.ReadAll(http.MaxBytesReader(nil, r.Body, maxDelivery))
	if _, ok := errors.AsType[*http.MaxBytesError](err); ok {
		return nil, &problem{code: apitype.CodeTooLarge, detail: fmt.Sprintf("Have the webhook send the event Workflow jobs alone: a delivery has at most %d bytes.", maxDelivery)}
	}
	if err != nil {
		return nil, malformed("The body did not arrive whole.")
	}
	return body, nil
}

// registered is every registration that can be used, and a fault of one that cannot.
type registered struct {
	accounts []store.Account
	faulty   error
}

// registrations reads them all. The reader keeps them, so that it costs no call.
func (s *server) registrations(ctx context.Context) (registered, error) {
	var all registered
	ids, err := s.Accounts.List(ctx)
	if err != nil {
		return all, outage(fmt.Errorf("list accounts: %w", err))
	}
	for _, id := range ids {
		a, err := s.Accounts.Account(ctx, id)
		switch {
		case errors.Is(err, store.ErrNoAccount):
		case errors.Is(err, store.ErrUnusable):
			all.faulty = fmt.Errorf("account %s: %w", id, err)
		case err != nil:
			return all, outage(fmt.Errorf("account %s: %w", id, err))
		default:
			all.accounts = append(all.accounts, a)
		}
	}
	return all, nil
}

// signer returns the registrations that a delivery may speak for: all, if the App signed
// it, and else those whose own secret did. Nothing of the body is read here.
func (s *server) signer(ctx context.Context, c *call, body []byte, all registered) (registered, error) {
	sig, ok := webhook.ParseSignature(c.Header.Get(webhook.SignatureHeader))
	if !ok {
		c.deny("no signature")
		return registered{}, refused("The delivery has no " + webhook.SignatureHeader + ". Set a secret in the webhook's settings at GitHub.")
	}
	if s.AppSecrets != nil {
		secrets, err := s.AppSecrets(ctx)
		if err != nil {
			return registered{}, outage(err)
		}
		if signedBy(sig, body, secrets) {
			c.about("signer", "app")
			return all, nil
		}
	}
	by := registered{}
	for _, a := range all.accounts {
		if signedBy(sig, body, a.WebhookSecrets) {
			by.accounts = append(by.accounts, a)
		}
	}
	if len(by.accounts) == 0 {
		c.deny("wrong signature")
		return by, refused("The signature is wrong: the webhook's secret at GitHub is neither the App's nor that of a registration.")
	}
	c.about("signer", "account "+by.accounts[0].ID)
	return by, nil
}

func signedBy(sig webhook.Signature, body []byte, secrets []secret.Text) bool {
	found := false
	for _, s := range secrets {
		found = sig.By(s, body) || found // all are compared, whichever it is
	}
	return found
}

// serving returns the registrations that serve the delivery's repository: those that name
// it, or else those that name its owner.
func (by registered) serving(d webhook.Delivery) []store.Account {
	var named, owned []store.Account
	for _, a := range by.accounts {
		switch {
		case !a.Serves(d.Repository), a.App().AppID != 0 && d.Installation != "" && !a.InstalledAs(d.Installation):
		case slices.ContainsFunc(a.Repositories, func(n store.Named) bool { return n.ID == d.Repository.ID }):
			named = append(named, a)
		default:
			owned = append(owned, a)
		}
	}
	if len(named) > 0 {
		return named
	}
	return owned
}
