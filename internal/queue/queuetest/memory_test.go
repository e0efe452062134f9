package queuetest

import (
	"testing"
	"testing/synctest"
	"time"

	"github.com/alphagov/github-actions-runner-orchestration/internal/queue"
)

func TestMemory(t *testing.T) {
	Run(t, Setup{
		Open:       func(*testing.T) queue.Queue { return NewMemory(40 * time.Second) },
		Visibility: 40 * time.Second,
		Bubble:     true,
	})
}

// In a bubble nothing lies between a send and its receive, so both are exact.
func TestMemoryIsPunctual(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := &bench{Setup{Visibility: 40 * time.Second, Sleep: time.Sleep}, NewMemory(40 * time.Second)}
		b.send(t, 1, 7*time.Second)
		began := time.Now()
		b.one(t, 1)
		b.one(t, 2)
		if took := time.Since(began); took != 47*time.Second {
			t.Errorf("two receives of a message delayed by 7 s took %v, want 47s", took)
		}
		r := b.begin(t.Context(), time.Minute)
		synctest.Wait()
		began = time.Now()
		b.send(t, 1, 0)
		<-r.done
		if took := time.Since(began); took != 0 {
			t.Errorf("a waiting Receive returned %v after the send, want at once", took)
		}
	})
}

// What a simulation does twice must come out twice.
func TestMemoryDeliversInTheOrderOfVisibility(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := &bench{Setup{Visibility: time.Minute, Sleep: time.Sleep}, NewMemory(time.Minute)}
		for i, delay := range []time.Duration{3, 1, 2, 1} {
			if err := b.Send(t.Context(), message(t, i), delay*time.Second); err != nil {
				t.Fatal(err)
			}
		}
		b.Sleep(3 * time.Second)
		got := b.some(t, 10, 0)
		for i, want := range []int{1, 3, 2, 0} {
			if len(got) != 4 || decoded(t, got[i].Body) != message(t, want) {
				t.Fatalf("Receive = %+v, want messages 1, 3, 2, 0", got)
			}
		}
	})
}
