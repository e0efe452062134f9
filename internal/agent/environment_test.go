package agent

import (
	"encoding/json"
	"maps"
	"testing"
	"time"

	"github.com/alphagov/github-actions-runner-orchestration/client/apitype"
	"github.com/alphagov/github-actions-runner-orchestration/store"
)

func TestEnvironmentOfTheRegistrationReachesEachProgram(t *testing.T) {
	want := map[string]string{"https_proxy": "http://proxy.test:3128"}
	bubble(t, store.Shared, func(w *world) {
		w.environment = want
		w.boot()
		if !maps.Equal(w.env, want) {
			t.Errorf("the first program has %v, want %v", w.env, want)
		}
		w.connect()
		w.later(time.Minute)
		w.kill()
		w.later(time.Minute)
		w.boot()
		w.env = nil
		w.job("1", time.Minute)
		w.later(time.Minute)
		if len(w.configs) != 2 || !maps.Equal(w.env, want) {
			t.Errorf("program %d has %v, want %v for the second", len(w.configs), w.env, want)
		}
	})
}

// An API that knows of no environment answers a new agent; a state that an old agent
// kept has none; an old agent reads the new answer and the new state.
func TestEnvironmentIsReadByOldAndNew(t *testing.T) {
	bubble(t, store.Ephemeral, func(w *world) {
		w.boot()
		if len(w.configs) != 1 || w.env != nil {
			t.Errorf("%d programs, and %v; want one, without an environment", len(w.configs), w.env)
		}
	})
	const oldState = `{"runner":"r1","nonce":"n","hard":"2026-11-23T12:00:00Z","counter":64,"session":"s","n":1,"started":true}`
	var s state
	if err := json.Unmarshal([]byte(oldState), &s); err != nil || s.Session != "s" || s.Environment != nil {
		t.Errorf("an old state is %+v, %v", s, err)
	}
	s.Environment = map[string]string{"A": "b"}
	kept, err := json.Marshal(s)
	if err != nil {
		t.Fatal(err)
	}
	var oldAgents struct { // as far as it counts here
		Runner  string `json:"runner"`
		Session string `json:"session"`
		Started bool   `json:"started"`
	}
	if err := json.Unmarshal(kept, &oldAgents); err != nil || oldAgents.Session != "s" || !oldAgents.Started {
		t.Errorf("an old agent reads %+v of a new state, %v", oldAgents, err)
	}
	answer, err := json.Marshal(apitype.Booted{Session: "s", Config: "c", N: 1, Environment: s.Environment})
	if err != nil {
		t.Fatal(err)
	}
	var oldAnswer struct {
		Session string `json:"session"`
		Config  string `json:"config"`
		N       int    `json:"n"`
	}
	if err := json.Unmarshal(answer, &oldAnswer); err != nil || oldAnswer.Session != "s" || oldAnswer.N != 1 {
		t.Errorf("an old agent reads %+v of a new answer, %v", oldAnswer, err)
	}
}
