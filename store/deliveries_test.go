package store_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/alphagov/github-actions-runner-orchestration/store"
)

// delivery is one of a minute's age for each unit below the newest id, which is 1000.
func delivery(id int64, missed string) store.Delivery {
	return store.Delivery{ID: id, At: at(time.Hour).Add(-time.Duration(1001-id) * time.Minute), Missed: missed}
}

func TestTheLogIsReadFromTheNewestDeliveryBackToTheLastOneSeen(t *testing.T) {
	now := at(time.Hour)
	l := store.DeliveryLog{App: 7, Seen: 990}
	l = l.Read(now, []store.Delivery{delivery(1000, "42"), delivery(999, ""), delivery(998, "43")}, "p2")
	if l.Seen != 990 || l.Top != 1000 || l.Cursor != "p2" || !l.Behind() {
		t.Fatalf("after a page %+v, want to continue with p2 and to have seen 990", l)
	}
	l = l.Read(now, []store.Delivery{delivery(991, "42"), delivery(990, "44"), delivery(989, "45")}, "p3")
	if want := (store.DeliveryLog{App: 7, Seen: 1000, Missed: []string{"42", "43"}}); !slices.Equal(l.Missed, want.Missed) || l.Seen != 1000 || l.Top != 0 || l.Cursor != "" {
		t.Fatalf("after the page with 990 %+v, want %+v: each repository once, and nothing of what was seen", l, want)
	}
	if l = l.Listed("42"); !slices.Equal(l.Missed, []string{"43"}) || !l.Behind() {
		t.Errorf("%v are left, want 43", l.Missed)
	}
	if l = l.Listed("43"); l.Behind() {
		t.Errorf("%+v has more to do, want nothing", l)
	}
}

func TestWhereTheReadingOfTheLogEnds(t *testing.T) {
	now := at(time.Hour)
	old := store.Delivery{ID: 5, At: now.Add(-48*time.Hour - time.Second), Missed: "43"}
	for _, c := range []struct {
		name   string
		page   []store.Delivery
		next   string
		seen   int64
		cursor string
		missed string
	}{
		{"AtItsEnd", []store.Delivery{delivery(1000, "42")}, "", 1000, "", "42"},
		{"AtOnesTooOldToMatter", []store.Delivery{delivery(1000, "42"), old}, "p2", 1000, "", "42"},
		{"NotAtOnesOfTwoDays", []store.Delivery{{ID: 5, At: now.Add(-48 * time.Hour), Missed: "43"}}, "p2", 0, "p2", "43"},
		{"EmptyLog", nil, "", 0, "", ""},
		// One that began a moment ago may be overtaken by others, and is met again.
		{"BeforeOnesOfTheLastMinute", []store.Delivery{{ID: 1002, At: now.Add(-59 * time.Second), Missed: "41"}, delivery(1000, "42")}, "", 1000, "", "42"},
		{"OfTheLastMinuteAlone", []store.Delivery{{ID: 1002, At: now.Add(-59 * time.Second), Missed: "41"}}, "", 0, "", ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			l := store.DeliveryLog{}.Read(now, c.page, c.next)
			if l.Seen != c.seen || l.Cursor != c.cursor || strings.Join(l.Missed, " ") != c.missed {
				t.Errorf("%+v, want seen %d, next %q and missed %q", l, c.seen, c.cursor, c.missed)
			}
		})
	}
}

func TestAReadingThatHasNothingNewForgetsNothing(t *testing.T) {
	l := store.DeliveryLog{Seen: 1000, Missed: []string{"42"}}
	if got := l.Read(at(time.Hour), []store.Delivery{delivery(1000, "43")}, "p2"); got.Seen != 1000 || got.Cursor != "" || !slices.Equal(got.Missed, l.Missed) {
		t.Errorf("%+v, want %+v", got, l)
	}
}

func TestMissedRepositoriesAreBounded(t *testing.T) {
	var page []store.Delivery
	for i := range 2001 {
		page = append(page, store.Delivery{ID: 1000, At: at(0), Missed: fmt.Sprint(i)})
	}
	if l := (store.DeliveryLog{}).Read(at(time.Hour), page, ""); len(l.Missed) != 2000 || l.Missed[0] != "0" {
		t.Errorf("%d are kept, from %s on; want 2000, the first ones", len(l.Missed), l.Missed[0])
	}
}

func TestASweepThatIsBehindComesWithTheNextRun(t *testing.T) {
	s := store.Sweep{Key: "111111111111/eu-west-2", Deliveries: store.DeliveryLog{Missed: []string{"42"}}}
	s.Swept(at(0), lim, false)
	if !s.DueAt.Equal(at(0)) {
		t.Errorf("due at %v, want at once", s.DueAt)
	}
	if s.Swept(at(0), lim, true); !s.DueAt.IsZero() {
		t.Errorf("the last sweep is due at %v", s.DueAt)
	}
	s.Deliveries.Missed = nil
	if s.Swept(at(0), lim, false); !s.DueAt.Equal(at(lim.SweepPeriod)) {
		t.Errorf("due at %v, want %v", s.DueAt, at(lim.SweepPeriod))
	}
}
