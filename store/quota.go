package store

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"maps"
	"slices"
	"time"
)

// Quota counts an account's machines and paces its launches. It is part of the
// commits that it guards, so that no burst passes either.
type Quota struct {
	Meta
	Account string `json:"account"`
	// Live is how many runners are neither failed nor ended; Limit is what the
	// registration allowed when it was last written.
	Live  int `json:"live"`
	Limit int `json:"limit"`
	// Next holds, per region, the earliest slot of a call that is not taken.
	Next map[string]time.Time `json:"next_launch,omitempty"`
	// Lines holds, per region, the requests that wait for their turn to be launched.
	Lines map[string]Line `json:"lines,omitempty"`
	// TooOld are the images whose runner program GitHub refused, the newest last.
	TooOld []TooOldImage `json:"too_old_images,omitempty"`
	// Reach is how the runners end if the account's registration goes. nil: none was
	// launched since there is such a thing.
	Reach *Reach `json:"reach,omitempty"`
	// Spent is what its machines cost that ended on the last day on which one did.
	Spent Spent `json:"spent,omitzero"`
	// ToldAt is when people were last alarmed that the account cannot be reached. Zero:
	// they were not since the last launch.
	ToldAt time.Time `json:"told_at,omitzero"`
}

// TooOldImage is an image whose runner program GitHub refused for its version.
type TooOldImage struct {
	Image string `json:"image"`
	// Program is the ProgramKey of the programs that the API offered to images
	// without one: with others, the image may be launched again.
	Program string    `json:"program,omitempty"`
	Runner  string    `json:"runner"` // that found out
	At      time.Time `json:"at"`
}

// maxTooOld bounds the images that are remembered: one that is forgotten costs a
// launch. An account has fewer in use at once.
const maxTooOld = 20

// tooOldFor is how long an image counts as refused. GitHub takes no version back,
// but a machine may be wrong, or lie: then a launch a day finds out.
const tooOldFor = 24 * time.Hour

// Ref implements Item.
func (q *Quota) Ref() Ref { return Ref{KindQuota, q.Account} }

func (q *Quota) name(id string) { q.Account = id }

// Slot returns the earliest time at which the next RunInstances call of the
// region may be made: not after now when the bucket has room.
func (q Quota) Slot(now time.Time, region string, p Pacing) time.Time {
	full := now.Add(-time.Duration(p.orDefault().Burst-1) * p.interval())
	return maxTime(full, q.Next[region])
}

// Reserve takes the slot. An unused slot is never given back: time passes it.
func (q Quota) Reserve(slot time.Time, region string, p Pacing) Quota {
	q.Next = maps.Clone(q.Next)
	if q.Next == nil {
		q.Next = map[string]time.Time{}
	}
	q.Next[region] = slot.Add(p.interval())
	return q
}

// ProgramKey names runner programs by the SHA-256 of each, by GOARCH: twelve hex
// digits, or "" for none.
func ProgramKey(programs map[string]string) string {
	if len(programs) == 0 {
		return ""
	}
	h := sha256.New()
	for _, arch := range slices.Sorted(maps.Keys(programs)) {
		fmt.Fprintf(h, "%s %s\n", arch, programs[arch])
	}
	return hex.EncodeToString(h.Sum(nil)[:6])
}

// refuse remembers that GitHub refused the runner program of r's image.
func (q Quota) refuse(now time.Time, r Runner, program string) Quota {
	refused := TooOldImage{Image: r.Launch.Image, Program: program, Runner: r.ID, At: now}
	q.Account = r.Account
	q.TooOld = append(slices.DeleteFunc(slices.Clone(q.TooOld), func(i TooOldImage) bool { return i.Image == refused.Image }), refused)
	q.TooOld = q.TooOld[max(0, len(q.TooOld)-maxTooOld):]
	return q
}

// Refuses returns why no machine is launched from image while the API offers
// program; false: nothing is known against it.
func (q Quota) Refuses(now time.Time, image, program string) (Failure, bool) {
	for _, i := range q.TooOld {
		if i.Image == image && i.Program == program && now.Sub(i.At) < tooOldFor {
			why := NewEnd(EndTooOld)
			why.Text = fmt.Sprintf("GitHub refused the runner program of image %s on runner %s at %s. Build an image with a newer one, or update runner_programs; then start again.",
				image, i.Runner, i.At.UTC().Format(time.RFC3339))
			return why, true
		}
	}
	return Failure{}, false
}

// release gives back the place of one runner.
func (q Quota) release() Quota {
	q.Live = max(0, q.Live-1)
	return q
}
