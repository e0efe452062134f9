package plan

import (
	"errors"
	"strconv"
	"sync"
	"time"

	"github.com/alphagov/github-actions-runner-orchestration/client"
	"github.com/alphagov/github-actions-runner-orchestration/client/apitype"
	"github.com/alphagov/github-actions-runner-orchestration/internal/sim/setting"
)

// checks has an operator run garo doctor, in some worlds several times at once.
func (s *story) checks(wg *sync.WaitGroup) {
	if !s.chance(300, "checks") {
		return
	}
	for i := range 1 + s.draw("how many checks")%3 {
		name := strconv.FormatUint(i, 10)
		if s.has("check", name) {
			wg.Go(func() { s.check(name) })
		}
	}
}

// check asks for a check, and polls until it is over.
func (s *story) check(name string) {
	time.Sleep(s.between(0, s.healsAfter()+2*time.Minute, "check at", name))
	body := oneOf(s.dice, []apitype.CheckStart{{}, {AccountID: setting.AccountID}, {AccountID: setting.AccountID, Region: setting.Region}}, "check of", name)
	started, err := s.w.Client.StartCheck(s.w.Context(), body)
	if err != nil {
		return // it may be recorded, and nobody polls it
	}
	for time.Now().Before(started.GiveUpAt) {
		c, err := s.w.Client.Check(s.w.Context(), started.ID)
		if errors.Is(err, client.ErrNotFound) || err == nil && c.State == apitype.CheckDone {
			break // it is done, or its record is lost
		}
		time.Sleep(s.between(2*time.Second, 20*time.Second, "looks at check", name, strconv.FormatInt(time.Now().UnixNano(), 10)))
	}
	s.w.Polled(started.ID, s.heals())
}
