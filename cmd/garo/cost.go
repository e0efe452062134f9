package main

import (
	"encoding/csv"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/alphagov/github-actions-runner-orchestration/client"
	"github.com/alphagov/github-actions-runner-orchestration/client/apitype"
)

// groups are what --by can name.
var groups = []string{"day", "repository", "workflow", "account", "type", "market"}

func costCommand() *cobra.Command {
	var t target
	var q client.UsageQuery
	var from, to string
	var asCSV bool
	c := &cobra.Command{
		Use:   "cost",
		Short: "Tell what machines cost",
		Long: `cost adds up what the machines cost that have ended, on the day of their end, in
UTC: the machines alone, at AWS's list prices. Where a price is not known, HOURS
without it are under UNPRICED, and are in no sum of dollars.`,
		Example: `  garo cost --by workflow --repo acme/shop
  garo cost --from 2026-03-01 --to 2026-03-31 --by day,repository --csv`,
		Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			for flag, day := range map[string]struct {
				text string
				into *time.Time
			}{"--from": {from, &q.From}, "--to": {to, &q.To}} {
				at, err := time.Parse(time.DateOnly, day.text)
				if err != nil && day.text != "" {
					return usage("%s %q: want a day such as 2026-03-01", flag, day.text)
				}
				*day.into = at
			}
			cl, err := t.client(cmd.Context())
			if err != nil {
				return err
			}
			found, err := cl.Usage(cmd.Context(), q)
			if err != nil {
				return told(err)
			}
			out := cmd.OutOrStdout()
			switch {
			case t.json:
				return printJSON(out, found)
			case asCSV:
				return costCSV(out, found)
			}
			return costTable(found).print(out)
		},
	}
	t.flags(c)
	f := c.Flags()
	f.StringVar(&from, "from", "", "the first day, such as 2026-03-01 (default six days before the last)")
	f.StringVar(&to, "to", "", "the last day (default today)")
	f.StringSliceVar(&q.By, "by", []string{"repository"}, "what to add up by: "+strings.Join(groups, ", "))
	f.StringVar(&q.Repository, "repo", "", "only of this repository: owner/name, or its numeric id")
	f.BoolVar(&asCSV, "csv", false, "print CSV")
	c.MarkFlagsMutuallyExclusive("csv", "json")
	t.complete(c, "by", words(groups...))
	t.complete(c, "repo", t.repositories)
	return c
}

// column is one of a row that only tells it apart.
var column = map[string]func(apitype.UsageRow) string{
	"day": func(r apitype.UsageRow) string { return r.Day }, "repository": func(r apitype.UsageRow) string { return r.Repository },
	"workflow": func(r apitype.UsageRow) string { return r.Workflow }, "account": func(r apitype.UsageRow) string { return r.Account },
	"type": func(r apitype.UsageRow) string { return r.InstanceType }, "market": func(r apitype.UsageRow) string { return r.Market },
}

// costTable is for people: hours, and dollars in cents.
func costTable(u apitype.Usage) *table {
	t := &table{spare: []string{"RUNNERS", "UNPRICED"}}
	for _, g := range u.By {
		t.head = append(t.head, strings.ToUpper(g))
	}
	t.head = append(t.head, "RUNNERS", "HOURS", "UNPRICED", "COST")
	add := func(r apitype.UsageRow, first string) {
		var cells []string
		for i, g := range u.By {
			cell := column[g](r)
			if i == 0 && first != "" {
				cell = first
			}
			cells = append(cells, cell)
		}
		unpriced := ""
		if r.UnpricedSeconds > 0 {
			unpriced = hours(r.UnpricedSeconds)
		}
		t.add(append(cells, fmt.Sprint(r.Runners), hours(r.Seconds), unpriced, costText(r))...)
	}
	for _, r := range u.Rows {
		add(r, "")
	}
	add(u.Total, "total")
	return t
}

func hours(seconds int64) string { return fmt.Sprintf("%.2f", float64(seconds)/3600) }

// costText says what a row cost: at least, where some prices are not known.
func costText(r apitype.UsageRow) string {
	switch {
	case r.USD == nil:
		return "unknown"
	case r.UnpricedSeconds > 0:
		return "more than " + money(*r.USD)
	}
	return money(*r.USD)
}

// money is in cents, and below a dollar in hundredths of them: a job can cost less than one.
func money(usd float64) string {
	if usd > 0 && usd < 1 {
		return fmt.Sprintf("$%.4f", usd)
	}
	return fmt.Sprintf("$%.2f", usd)
}

// costCSV is for programs: seconds, and dollars with all decimals. What is not known is empty.
func costCSV(out io.Writer, u apitype.Usage) error {
	w := csv.NewWriter(out)
	rows := [][]string{append(append([]string{}, u.By...), "runners", "seconds", "unpriced_seconds", "usd")}
	for _, r := range u.Rows {
		var cells []string
		for _, g := range u.By {
			cells = append(cells, cell(column[g](r)))
		}
		usd := ""
		if r.USD != nil {
			usd = fmt.Sprintf("%.6f", *r.USD)
		}
		rows = append(rows, append(cells, fmt.Sprint(r.Runners), fmt.Sprint(r.Seconds), fmt.Sprint(r.UnpricedSeconds), usd))
	}
	return w.WriteAll(rows)
}

// cell returns what a spreadsheet does not take for a formula: a workflow's name is anybody's.
func cell(s string) string {
	if s != "" && strings.ContainsRune("=+-@\t\r", rune(s[0])) {
		return "'" + s
	}
	return s
}
