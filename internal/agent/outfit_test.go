package agent

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/alphagov/github-actions-runner-orchestration/client/apitype"
	"github.com/alphagov/github-actions-runner-orchestration/store"
)

var outfit = apitype.Outfit{
	Setup:    &apitype.Setup{Script: []byte("#!/bin/sh\n# canary-script\n"), SHA256: strings.Repeat("ab", 32), LimitS: 30},
	JobUser:  &apitype.JobUser{Sudo: true},
	Packages: []string{"git"},
	Hooks:    &apitype.Hooks{Started: "/opt/started.sh"},

	InstanceStore: "mount", JobsRole: true,
}

// The script is kept until it was run, for an agent that is started again, and no longer.
func TestMachineIsFittedOutBeforeItsFirstProgram(t *testing.T) {
	bubble(t, store.Ephemeral, func(w *world) {
		w.outfit = outfit
		var got []apitype.Outfit
		w.install = func(ctx context.Context, _ apitype.RunnerProgram, o apitype.Outfit) (string, error) {
			got = append(got, o)
			if len(got) == 1 {
				<-ctx.Done()
				return "", ctx.Err()
			}
			time.Sleep(time.Minute)
			return "set up in 60.0 s: script", nil
		}
		w.boot()
		w.later(time.Second)
		w.kill()
		w.take()
		w.boot()
		w.later(59 * time.Second)
		if len(got) != 2 || !reflect.DeepEqual(got[1], outfit) || len(w.configs) != 0 {
			t.Errorf("fitted out with %+v, and %d programs; want twice with %+v, and none yet", got, len(w.configs), outfit)
		}
		w.later(2 * time.Second)
		w.wantSaid("booting", "note")
		if len(w.configs) != 1 || w.events[1].Detail != "set up in 60.0 s: script" {
			t.Errorf("%d programs, and said %q; want one, and what was done", len(w.configs), w.events[1].Detail)
		}
		var s state
		if err := json.Unmarshal(w.disk, &s); err != nil || s.Outfit.Setup == nil || s.Outfit.Setup.Script != nil || !reflect.DeepEqual(s.Outfit.JobUser, outfit.JobUser) {
			t.Errorf("kept is %+v, %v; want all but the script", s.Outfit, err)
		}
	})
}

func TestMachineThatCannotBeFittedOutSaysWhyAndEnds(t *testing.T) {
	for name, install := range map[string]func(ctx context.Context) error{
		"BecauseItFails": func(context.Context) error {
			return fmt.Errorf("%w: script: exit status 3; it printed: %s", ErrSetup, session)
		},
		"BecauseItHangs": func(ctx context.Context) error {
			<-ctx.Done()
			return fmt.Errorf("%w: packages: %w", ErrSetup, ctx.Err())
		},
	} {
		t.Run(name, func(t *testing.T) {
			bubble(t, store.Ephemeral, func(w *world) {
				w.outfit = outfit
				w.install = func(ctx context.Context, _ apitype.RunnerProgram, _ apitype.Outfit) (string, error) {
					return "", install(ctx)
				}
				w.boot()
				w.later(installLimit + time.Minute)
				w.wantOff(store.EndSetup)
				w.wantSaid("booting", "draining setup_failed")
				if d := w.events[1].Detail; !strings.HasPrefix(d, "set-up: ") || strings.Contains(d, session) {
					t.Errorf("detail = %q, want the reason without a secret", d)
				}
				if len(w.configs) != 0 {
					t.Error("a runner program was started")
				}
			})
		})
	}
}

// An old API names no outfit, and never sees which parts this agent knows but in a boot
// call's header; an old state has none; an old agent reads an answer and a state with one.
func TestOutfitIsReadByOldAndNew(t *testing.T) {
	bubble(t, store.Ephemeral, func(w *world) {
		w.install = func(_ context.Context, _ apitype.RunnerProgram, o apitype.Outfit) (string, error) {
			if len(o.Parts()) > 0 {
				return "", errors.New("an outfit of nobody's")
			}
			return "", nil
		}
		w.boot()
		if len(w.configs) != 1 || w.options != strings.Join(apitype.OutfitParts, ",") {
			t.Errorf("%d programs, and the agent knows %q; want one, and all parts", len(w.configs), w.options)
		}
	})
	const oldState = `{"runner":"r1","nonce":"n","hard":"2026-11-23T12:00:00Z","counter":64,"session":"s","n":1,"started":true}`
	var s state
	if err := json.Unmarshal([]byte(oldState), &s); err != nil || s.Session != "s" || len(s.Outfit.Parts()) != 0 {
		t.Errorf("an old state is %+v, %v", s, err)
	}
	answer, err := json.Marshal(apitype.Booted{Session: "s", Config: "c", N: 1, Outfit: outfit})
	if err != nil {
		t.Fatal(err)
	}
	var old struct {
		Session string `json:"session"`
		N       int    `json:"n"`
	}
	if err := json.Unmarshal(answer, &old); err != nil || old.Session != "s" || old.N != 1 {
		t.Errorf("an old agent reads %+v of a new answer, %v", old, err)
	}
	if got := outfit.Parts(); !reflect.DeepEqual(got, apitype.OutfitParts) {
		t.Errorf("the parts of a whole outfit are %q, want all of %q", got, apitype.OutfitParts)
	}
}
