//go:build linux

package e2e

import (
	"bytes"
	"fmt"
	"maps"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/service/ec2"
	"github.com/aws/aws-sdk-go-v2/service/ec2/types"

	"github.com/alphagov/github-actions-runner-orchestration/client/apitype"
	"github.com/alphagov/github-actions-runner-orchestration/internal/fleet"
	"github.com/alphagov/github-actions-runner-orchestration/store"
)

// elders makes EC2 say that some instances were launched a quarter of an hour ago:
// moto cannot launch in the past.
type elders struct {
	mu  sync.Mutex
	ids []string
}

func (e *elders) around(aws http.Handler) http.Handler {
	return http.HandlerFunc(func(res http.ResponseWriter, req *http.Request) {
		w := httptest.NewRecorder()
		aws.ServeHTTP(w, req)
		body := w.Body.Bytes()
		e.mu.Lock()
		defer e.mu.Unlock()
		for _, id := range e.ids {
			body = aged(body, id)
		}
		maps.Copy(res.Header(), w.Header())
		res.WriteHeader(w.Code)
		_, _ = res.Write(body)
	})
}

// aged is an answer of EC2's with another launch time of an instance.
func aged(body []byte, id string) []byte {
	const open, end = "<launchTime>", "</launchTime>"
	head, rest, ok := bytes.Cut(body, []byte("<instanceId>"+id+"</instanceId>"))
	if !ok {
		return body
	}
	before, rest, ok := bytes.Cut(rest, []byte(open))
	_, after, found := bytes.Cut(rest, []byte(end))
	if !ok || !found {
		return body
	}
	then := time.Now().Add(-15 * time.Minute).UTC().Format("2006-01-02T15:04:05.000Z")
	return fmt.Appendf(nil, "%s<instanceId>%s</instanceId>%s%s%s%s%s", head, id, before, open, then, end, after)
}

func TestOrphanIsSweptAway(t *testing.T) {
	old := &elders{}
	w := newWorld(t, options{aws: old.around})
	w.poll()
	s := w.ask("1", apitype.Start{})
	run := w.configured(s)
	client := w.ec2(w.runners, home)
	mine := w.instances(w.runners, home)[0]
	plant := func(plane string) string {
		out, err := client.RunInstances(t.Context(), &ec2.RunInstancesInput{
			ImageId: mine.ImageId, SubnetId: mine.SubnetId, InstanceType: mine.InstanceType, MinCount: new(int32(1)), MaxCount: new(int32(1)),
			TagSpecifications: []types.TagSpecification{{ResourceType: types.ResourceTypeInstance, Tags: []types.Tag{
				{Key: new(fleet.TagControlPlane), Value: &plane}, {Key: new(fleet.TagRunner), Value: new(strings.Repeat("b", 26))},
			}}},
		})
		if err != nil {
			t.Fatal(err)
		}
		return *out.Instances[0].InstanceId
	}
	orphan, young, other := plant(controlPlane), plant(controlPlane), plant("another")
	old.mu.Lock()
	old.ids = []string{orphan, other}
	old.mu.Unlock()

	w.reap()
	key := store.SweepKey(w.runners, home)
	sweep, err := store.Read[store.Sweep](t.Context(), w.store, key)
	if err != nil || len(sweep.Instances) != 2 || sweep.Instances[orphan].IsZero() || sweep.Instances[young].IsZero() || w.terminated(home, orphan) {
		t.Fatalf("the first sweep saw %v, %v; want both instances without a record, and that none is ended yet", sweep.Instances, err)
	}
	// The next sweep is due in five minutes, and the first sighting has to be a
	// minute ago: both are made so.
	edit[store.Sweep](w, key, func(s *store.Sweep) {
		s.DueAt = time.Now().Add(-time.Second)
		for id, at := range s.Instances {
			s.Instances[id] = at.Add(-2 * time.Minute)
		}
	})
	w.reap()
	for id, want := range map[string]bool{orphan: true, young: false, other: false, run.InstanceID: false} {
		if got := w.terminated(home, id); got != want {
			t.Errorf("instance %s terminated = %v, want %v (orphan %s, young %s, of another control plane %s, with a record %s)", id, got, want, orphan, young, other, run.InstanceID)
		}
	}
	sweep, err = store.Read[store.Sweep](t.Context(), w.store, key)
	if err != nil || len(sweep.History) == 0 || !strings.Contains(sweep.History[0].Reason, orphan) {
		t.Errorf("the sweep's history is %v, %v; want what was ended", sweep.History, err)
	}
	w.boot(home, run.InstanceID)
	w.eventually("the request is ready", func() bool { return w.status(s).State == string(store.Ready) })
}
