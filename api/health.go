package api

import (
	"context"
	"maps"
	"strconv"
	"time"

	"github.com/alphagov/github-actions-runner-orchestration/client/apitype"
	"github.com/alphagov/github-actions-runner-orchestration/store"
)

// reaperHealth answers what the last runs of the reaper recorded. The first shard says how
// many there are.
func reaperHealth(ctx context.Context, c *call) (apitype.ReaperHealth, error) {
	if _, err := c.operator(ctx); err != nil {
		return apitype.ReaperHealth{}, err
	}
	c.tagged = true
	out := apitype.ReaperHealth{Runs: []apitype.ReaperRun{}}
	items, err := c.get(ctx, store.ReaperRunRefs(1)...)
	if err != nil || items[0].Base().Version == 0 {
		return out, err
	}
	out.Shards = max(1, items[0].(*store.ReaperRun).Of)
	if refs := store.ReaperRunRefs(out.Shards); out.Shards > 1 {
		if items, err = c.get(ctx, refs...); err != nil {
			return apitype.ReaperHealth{}, err
		}
	}
	for _, it := range items {
		if r := *it.(*store.ReaperRun); r.Version != 0 && max(1, r.Of) == out.Shards { // others are of before the number changed
			out.Runs = append(out.Runs, runOf(r))
		}
	}
	return out, nil
}

// runOf returns what people see of a run of the reaper.
func runOf(r store.ReaperRun) apitype.ReaperRun {
	ms := func(n int64) apitype.Seconds { return apitype.InSeconds(time.Duration(n) * time.Millisecond) }
	shard, _ := strconv.Atoi(r.ID) // as store.ReaperRunRefs names it
	out := apitype.ReaperRun{
		Shard: shard, StartedAt: r.StartedAt, EndedAt: r.EndedAt, LateS: ms(r.LateMS), Left: map[string]int{}, Failures: r.Failures, OldestWaitS: ms(r.OldestMS),
		GitHubLeft: r.GitHubLeft, LookedAt: r.LookedAt, Brakes: append([]string{}, r.Braked...), RunnerVersion: r.Program, RunnerVersionEndsAt: r.ProgramEndsAt,
		Alarms: make([]apitype.RaisedAlarm, 0, len(r.Alarms)),
	}
	maps.Copy(out.Left, r.Left)
	for _, a := range r.Alarms {
		out.Alarms = append(out.Alarms, apitype.RaisedAlarm{Code: string(a.Code), Count: a.Count, Since: a.Since, At: a.At, Text: a.Text})
	}
	return out
}
