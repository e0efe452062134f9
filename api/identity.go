package api

import (
	"fmt"
	"log/slog"

	"github.com/alphagov/github-actions-runner-orchestration/client/apitype"
	"github.com/alphagov/github-actions-runner-orchestration/store"
)

// vouched returns nil if AWS says that a boot call, whose token was verified, comes from
// the instance that it claims, in the runner's account and region. That is not asked of
// the call whose nonce is bound: AWS said so before, and may say it in other words after a
// restart of the machine.
func (s *server) vouched(run store.Runner, nonceHash string, b apitype.Boot) error {
	if !run.Launch.Vouched || run.Boot.NonceHash == nonceHash && run.Boot.InstanceID == b.InstanceID {
		return nil
	}
	said, err := s.Identity.Verify(run.Region, b.Identity)
	switch {
	case err != nil:
		return err
	case said.AccountID != run.Account:
		return fmt.Errorf("AWS's word is for a machine of account %.12s", said.AccountID)
	case said.Region != run.Region:
		return fmt.Errorf("AWS's word is for a machine in %.32s", said.Region)
	case said.InstanceID != b.InstanceID:
		return fmt.Errorf("AWS's word is for %.40s", said.InstanceID)
	}
	if place := run.Placement(); said.ImageID != run.Launch.Image || said.InstanceType != place.InstanceType {
		// The id decides: there is only ever one instance of it.
		s.Log.Warn("a machine is not as it was launched", "runner", run.ID, "instance", b.InstanceID,
			"image", said.ImageID, "type", said.InstanceType)
	}
	return nil
}

// foreign refuses a boot call that has the runner's token and does not come from its
// machine. It reads like any wrong token, and changes nothing.
func (c *call) foreign(run store.Runner, claims string, why error) error {
	c.deny("not from the runner's machine")
	c.alarm(store.AlarmIdentity, "boot without AWS's word for the runner's machine", slog.String("runner", run.ID), slog.String("request", run.Request),
		slog.String("instance", run.InstanceID), slog.String("claims", claims), slog.String("error", why.Error()))
	return unauthenticated()
}
