package store

import (
	"context"
	"log/slog"
)

// Alarm is the code of something that an operator must look at. An alarm is one
// ERROR log line with the attribute alarm=<code>; the list is fixed, so that
// each code can have a metric filter.
type Alarm string

// Raise logs the alarm, with the attributes that say what it is about.
func (a Alarm) Raise(ctx context.Context, log *slog.Logger, msg string, attrs ...any) {
	log.ErrorContext(ctx, msg, append([]any{"alarm", string(a)}, attrs...)...)
}

// The alarms.
const (
	AlarmCompromised   Alarm = "compromised"         // a boot token was used twice
	AlarmIdentity      Alarm = "boot_identity"       // a boot token came without AWS's word for the machine, or with that for another
	AlarmJobStolen     Alarm = "job_stolen"          // a job of another run took an ephemeral runner
	AlarmTwoJobs       Alarm = "runner_two_jobs"     // GitHub says that two workflow jobs began on a one-job runner
	AlarmJobWaits      Alarm = "job_waits"           // a workflow job lost one machine after another
	AlarmJobForbidden  Alarm = "job_forbidden"       // a workflow job that looks like ours may have no machine
	AlarmRunnerTooOld  Alarm = "runner_too_old"      // GitHub refuses the image's runner program
	AlarmVersionEnds   Alarm = "runner_version_ends" // GitHub will soon refuse a runner program that is in use
	AlarmMismatch      Alarm = "token_mismatch"      // EC2 knows the client token with other bytes
	AlarmLaunchRefused Alarm = "launch_refused"      // EC2 or STS refuses for a reason that only people can fix
	AlarmThrottled     Alarm = "launch_throttled"    // EC2 refuses launches for their pace
	AlarmTerminate     Alarm = "terminate"           // EC2 refuses to terminate a machine
	AlarmAccess        Alarm = "access"              // an account, credential or registration cannot be used
	AlarmGitHub        Alarm = "github"              // GitHub refuses the credential
	AlarmBrake         Alarm = "brake"               // a sweep would end too many machines at once
	AlarmBusy          Alarm = "busy_runner"         // an end waits for a job that nobody here knows of
	AlarmRogue         Alarm = "rogue_runner"        // GitHub has a runner that no record names
	AlarmTags          Alarm = "tags_edited"         // a recorded machine has other tags than its launch gave it
	AlarmFlood         Alarm = "machine_flood"       // a machine says more than its budget has room for
	AlarmPanic         Alarm = "panic"
	AlarmWebhook       Alarm = "webhook"         // a signed delivery of GitHub's cannot be read, or its App was suspended or removed
	AlarmUnknown       Alarm = "unknown_message" // a message names what the table does not have
	AlarmReaper        Alarm = "reaper"          // a run of the reaper failed, in part or whole
	AlarmLate          Alarm = "reaper_late"     // a run of the reaper had less time than there was to do
)

// Alarms lists every code.
var Alarms = []Alarm{AlarmCompromised, AlarmIdentity, AlarmJobStolen, AlarmTwoJobs, AlarmJobWaits, AlarmJobForbidden, AlarmRunnerTooOld, AlarmVersionEnds, AlarmMismatch, AlarmLaunchRefused, AlarmThrottled,
	AlarmTerminate, AlarmAccess, AlarmGitHub, AlarmBrake, AlarmBusy, AlarmRogue, AlarmTags, AlarmFlood, AlarmPanic, AlarmWebhook, AlarmUnknown, AlarmReaper, AlarmLate}
