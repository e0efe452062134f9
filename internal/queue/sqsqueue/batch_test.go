package sqsqueue

import (
	"strings"
	"testing"
	"time"

	"github.com/alphagov/github-actions-runner-orchestration/internal/queue"
)

func TestEachMessageOfABatchHasItsOwnAnswer(t *testing.T) {
	all := make([]queue.Outgoing, 4)
	for i := range all {
		all[i] = queue.Outgoing{Message: message1, Delay: time.Duration(i) * time.Second / 2}
	}
	for _, c := range []struct {
		name string
		answer
		want [4]string // in each error; empty: none
	}{
		{"all taken", answer{200, "", `{"Successful":[{"Id":"0"},{"Id":"1"},{"Id":"2"},{"Id":"3"}]}`, 0}, [4]string{}},
		{"one refused, with status 200", answer{200, "", `{"Successful":[{"Id":"0"},{"Id":"1"},{"Id":"3"}],
			"Failed":[{"Id":"2","Code":"InternalError","Message":"try again","SenderFault":false}]}`, 0}, [4]string{2: "InternalError: try again"}},
		{"one not named", answer{200, "", `{"Successful":[{"Id":"0"},{"Id":"1"},{"Id":"2"},{"Id":"9"},{"Id":"x"}]}`, 0}, [4]string{3: "does not name the message"}},
		{"the call refused", failed(400, "AWS.SimpleQueueService.NonExistentQueue", "QueueDoesNotExist", "no"),
			[4]string{"apply Terraform", "apply Terraform", "apply Terraform", "apply Terraform"}},
	} {
		s := &service{script: []answer{c.answer}}
		errs := over(s).SendAll(t.Context(), all...)
		if c.want == ([4]string{}) && errs != nil {
			t.Errorf("%s: SendAll = %v, want nil", c.name, errs)
		}
		for i, want := range c.want {
			if errs != nil && ((errs[i] == nil) != (want == "") || want != "" && !strings.Contains(errs[i].Error(), want)) {
				t.Errorf("%s: error of message %d = %v, want it to say %q", c.name, i, errs[i], want)
			}
		}
		if len(s.calls) != 1 || s.calls[0].op != "SendMessageBatch" {
			t.Fatalf("%s: calls = %+v, want one SendMessageBatch", c.name, s.calls)
		}
		entries := s.calls[0].in["Entries"].([]any)
		if last := entries[3].(map[string]any); len(entries) != 4 || last["DelaySeconds"] != 2.0 || last["Id"] != "3" {
			t.Errorf("%s: entries = %v, want four, and the last one delayed by 1.5 s, rounded up", c.name, entries)
		}
	}
}
