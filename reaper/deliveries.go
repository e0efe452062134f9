package reaper

import (
	"context"
	"errors"
	"fmt"
	"strconv"

	"github.com/alphagov/github-actions-runner-orchestration/internal/github"
	"github.com/alphagov/github-actions-runner-orchestration/store"
)

// pagesAtOnce is how many pages of an App's log of deliveries a sweep reads, one after
// another: of a hundred deliveries and 0.2 s each, in half a minute. A day's outage of
// 20,000 jobs leaves 600 pages, which are four runs.
const pagesAtOnce = 150

// deliveries reads on in the log of the account's GitHub App, from the newest delivery back
// to what was seen before. It tells of webhooks that did not reach us, and no job: which
// repositories have to be listed. What GitHub does not tell now is left to a later sweep.
func (gh atGitHub) deliveries(ctx context.Context, account store.Account, l store.DeliveryLog) store.DeliveryLog {
	if app := account.App().AppID; l.App != app {
		l = store.DeliveryLog{App: app}
	}
	for n := 0; l.App != 0 && n < pagesAtOnce && !isLate(ctx); n++ {
		page, next, err := gh.deliveriesPage(ctx, account, l.Cursor)
		if errors.Is(err, github.ErrRefused) && l.Cursor != "" {
			l.Cursor, l.Top = "", 0 // GitHub knows that page no more: the next sweep begins again
		}
		if err != nil {
			return l
		}
		if l = l.Read(gh.cfg.Now(), page, next); l.Cursor == "" {
			break
		}
	}
	return l
}

// deliveriesPage reads a page of the log, and tells of its failure.
func (gh atGitHub) deliveriesPage(ctx context.Context, account store.Account, cursor string) (page []store.Delivery, next string, err error) {
	var all []github.Delivery
	app := github.Scope{Account: account.ID + " as the App", Name: "its log of deliveries"} // whose limit is another than the account's
	err = gh.askGitHub(ctx, app, callLimit, func(ctx context.Context) (err error) {
		all, next, err = gh.cfg.Workflows.Deliveries(ctx, account.ID, cursor)
		return err
	})
	switch {
	case err == nil:
	case errors.Is(err, errLater), errors.Is(err, github.ErrRefused) && cursor != "":
		gh.line(Line{Kind: "account", ID: account.ID, Action: Skip, Reason: err.Error()})
	case !gh.isRefused(account.ID, "account", account.ID, err):
		gh.fail("account", account.ID, fmt.Errorf("read the deliveries of the GitHub App of account %s: %w", account.ID, err))
	}
	for _, d := range all {
		page = append(page, store.Delivery{ID: d.ID, At: d.At, Missed: missed(account, d)})
	}
	return page, next, err
}

// missed returns the repository whose queued job a delivery told of that did not reach us;
// empty: it did, or is of another installation than the account's.
func missed(account store.Account, d github.Delivery) string {
	if d.OK || d.Event != "workflow_job" || d.Action != github.StatusQueued || d.Repository == 0 ||
		d.Installation != 0 && account.App().AppID != 0 && d.Installation != account.App().InstallationID {
		return ""
	}
	return strconv.FormatInt(d.Repository, 10)
}
