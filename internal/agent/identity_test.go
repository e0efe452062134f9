package agent

import (
	"errors"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"
)

var errNoMetadata = errors.New("no route to host")

func TestBootCarriesAWSsWordAsItIsThen(t *testing.T) {
	bubble(t, "ephemeral", func(w *world) {
		n := 0
		w.word = func() (string, error) {
			n++
			return strings.Repeat("word", n), nil
		}
		w.answers = []int{http.StatusTooEarly, 0}
		w.boot()
		w.later(time.Minute)
		if want := []string{"word", "wordword", "wordwordword"}; !slices.Equal(w.words, want) {
			t.Errorf("boot calls carried %q, want %q", w.words, want)
		}
		if len(w.nonces) != 1 {
			t.Errorf("%d nonces, want one", len(w.nonces))
		}
		if strings.Contains(string(w.disk), "word") {
			t.Errorf("the word is kept: %s", w.disk)
		}
	})
}

func TestMetadataServiceIsAskedAgainBeforeABootWithoutIt(t *testing.T) {
	bubble(t, "ephemeral", func(w *world) {
		asked := 0
		w.word = func() (string, error) { asked++; return "", errNoMetadata }
		w.boot()
		w.later(5 * time.Second)
		if len(w.calls) != 0 || asked < 2 {
			t.Errorf("%d calls after asking %d times, want none, and to ask again", len(w.calls), asked)
		}
		w.later(20 * time.Second)
		if calls := w.of("boot"); len(calls) != 1 || w.words[0] != "" || asked != identityTries {
			t.Fatalf("boot calls %+v with %q after asking %d times; want one without a word after %d", calls, w.words, asked, identityTries)
		}
	})
}

func TestMetadataServiceThatComesBackIsBelieved(t *testing.T) {
	bubble(t, "ephemeral", func(w *world) {
		asked := 0
		w.word = func() (string, error) {
			if asked++; asked < identityTries {
				return "", errNoMetadata
			}
			return "word", nil
		}
		w.boot()
		w.later(time.Minute)
		if !slices.Equal(w.words, []string{"word"}) {
			t.Errorf("boot calls carried %q, want the word alone", w.words)
		}
	})
}

func TestBootThatIsRefusedPowersOff(t *testing.T) {
	bubble(t, "ephemeral", func(w *world) {
		w.word = func() (string, error) { return "word", nil }
		w.answers = []int{http.StatusUnauthorized}
		w.boot()
		w.wantOff("the boot was refused with status 401")
		if len(w.words) != 1 {
			t.Errorf("%d boot calls, want one", len(w.words))
		}
	})
}

// A deploy that is taken back leaves agents of this version before an API of the one before.
func TestAPIOfTheVersionBeforeIsCalledWithoutAWSsWord(t *testing.T) {
	bubble(t, "ephemeral", func(w *world) {
		w.word = func() (string, error) { return "word", nil }
		w.before = true
		w.boot()
		w.later(time.Second)
		w.wantOn()
		if !slices.Equal(w.words, []string{"word", ""}) || len(w.configs) != 1 {
			t.Errorf("boot calls carried %q, and %d configs came; want the second call without, and one", w.words, len(w.configs))
		}
	})
}
