package store

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"iter"
	"slices"
	"strings"
	"sync/atomic"
	"time"
)

// ErrConflict is what Commit answers when an item is no longer as it was read:
// nothing was written. The error is a *ConflictError.
var ErrConflict = errors.New("changed since it was read")

// ConflictError tells which items a commit lost to.
type ConflictError struct {
	// Current holds, for every member whose condition failed, the item as it
	// stands now: with Version 0 when it is absent. Members whose condition held
	// are not in it.
	Current []Item
}

func (e *ConflictError) Error() string {
	names := make([]string, len(e.Current))
	for i, it := range e.Current {
		names[i] = it.Ref().String()
	}
	return strings.Join(names, ", ") + " " + ErrConflict.Error()
}

// Is makes a *ConflictError an ErrConflict.
func (e *ConflictError) Is(target error) bool { return target == ErrConflict }

// Change is one member of a commit. Make it with Put or Check.
type Change struct {
	Item Item
	// CheckOnly: the item must still have the version it was read at, and is
	// not written.
	CheckOnly bool
	// Was is the item as the decision found it, for those who count what a commit
	// changes. nil: nobody knows. A Store has no use for it.
	Was Item
}

// Put changes the stored item to i, if it still has i's version (0: is absent).
func Put(i Item) Change { return Change{Item: i} }

// Check writes nothing, but lets the commit fail if i is not current any more.
// It too conflicts with a concurrent commit that writes i.
func Check(i Item) Change { return Change{Item: i, CheckOnly: true} }

// MaxChanges is how many members a commit may have: TransactWriteItems takes
// 100 (https://docs.aws.amazon.com/amazondynamodb/latest/APIReference/API_TransactWriteItems.html).
const MaxChanges = 100

// Validate refuses what no Commit takes: too few or too many changes, one without
// an item or whose item has no id, and an item that is in the commit twice.
func Validate(changes []Change) error {
	if len(changes) == 0 || len(changes) > MaxChanges {
		return fmt.Errorf("%d changes: want 1 to %d", len(changes), MaxChanges)
	}
	seen := make(map[Ref]bool, len(changes))
	for _, c := range changes {
		if c.Item == nil {
			return errors.New("a change has no item")
		}
		ref := c.Item.Ref()
		if ref.ID == "" {
			return fmt.Errorf("%s: an item has an id", ref)
		}
		if seen[ref] {
			return fmt.Errorf("%s is in the commit twice", ref)
		}
		seen[ref] = true
	}
	return nil
}

// Wrote reports whether the stored item of which current is the base is what this
// very change put: then all of its commit was written before, since a commit is
// never half done, and only the answer was lost.
func (c Change) Wrote(current *Meta) bool {
	if c.CheckOnly {
		return false
	}
	read := c.Item.Base()
	return read.Writer != "" && current.Writer == read.Writer && current.Version == read.Version+1
}

// Store keeps items. It decides nothing: the rules are the pure functions of
// this package, and a Store only promises that what they decided from is what
// is still there when their result is written.
//
// All methods are safe for concurrent use by any number of processes. Any error
// but a ConflictError means that the outcome is not known; the caller reads again.
type Store interface {
	// Get returns the items that refs name, in that order, in one round trip;
	// an absent one comes back with Version 0. Each is read consistently, but
	// all of them together are no snapshot: only Commit decides. Callers own
	// what they get.
	Get(ctx context.Context, refs ...Ref) ([]Item, error)

	// Commit applies all changes or none. Every change demands that the stored
	// item has the Version its Item carries. On success it returns nil, and every
	// Item that was put carries its new Version; on ErrConflict nothing was
	// written, and the items given are as they were.
	//
	// A put whose condition fails because this very commit (by Meta.Writer) has
	// already been applied, as when the answer of a first try was lost, is a
	// success. An item may be in a commit once, and a commit has 1 to MaxChanges.
	Commit(ctx context.Context, changes ...Change) error

	// Due yields the refs of items whose due_at is not after before, oldest
	// first. It reads an index, which may lag behind the items and is never a
	// scan: it finds, the item decides.
	Due(ctx context.Context, before time.Time) iter.Seq2[Ref, error]

	// List yields requests, runners or usage for people to read, newest first. When f.Look
	// ends it, its last error is a *MoreError.
	List(ctx context.Context, f Filter) iter.Seq2[Item, error]

	// CountOpen returns how many requests of a repository are not final, and most if
	// they are more. It reads an index that has these alone, and at most so many
	// entries of it, however many records there are. As Due's, it may lag behind.
	CountOpen(ctx context.Context, repo Repository, most int) (int, error)
}

// LiveRunners is what OpenIn says of each runner that is not over. No Repository.Key is
// so.
const LiveRunners = "runners"

// OpenIn returns in which part of the index of what is not over an item is: a request in
// its repository's, a runner in LiveRunners. Empty: it is in none.
func OpenIn(i Item) string {
	switch i := i.(type) {
	case *Request:
		if !i.State.Final() && i.State != "" {
			return i.Repository.Key()
		}
	case *Runner:
		if !i.State.Final() && i.State != "" {
			return LiveRunners
		}
	}
	return ""
}

// FoundBy returns what people find an item by who do not know its id: the instance of a
// runner, the workflow run of a request. Empty: nothing.
func FoundBy(i Item) string {
	switch i := i.(type) {
	case *Request:
		return i.Origin.RunID
	case *Runner:
		return i.InstanceID
	}
	return ""
}

// Filter says what List yields. The fields that are set must all match. An index has
// the kind and the repository, or FoundBy, and is read from Since on; its entries have
// the state. For Account, Region and Name each item is read.
type Filter struct {
	Kind       Kind     // KindRequest (the zero value means it too), KindRunner or KindUsage
	Repository string   // the repository's id
	Name       string   // the repository's name, in letters of any case
	States     []string // any of these
	Account    string   // the AWS account's id
	Region     string
	FoundBy    string    // see the function. Look does not bound what has it
	Since      time.Time // made then or later
	After      string    // a Cursor: yield what comes after that item
	Limit      int       // yield at most so many; zero: all
	// Look bounds what the answer costs where few items match: at most so many
	// entries of an index are looked at. Zero: as many as it takes.
	Look int
}

// Lists returns the kind that f is about, KindRequest for the zero value. The error is for
// kinds that are not listed.
func (f Filter) Lists() (Kind, error) {
	switch kind := cmp.Or(f.Kind, KindRequest); kind {
	case KindRequest, KindRunner, KindUsage:
		return kind, nil
	default:
		return kind, fmt.Errorf("list %s: only requests, runners and usage are listed", kind)
	}
}

// MoreError ends a List that has looked at as many entries as Filter.Look allows,
// and has yielded fewer items than Filter.Limit.
type MoreError struct {
	// After is the Cursor behind which the next List continues. It need not be one
	// of an item that matches, and there may be nothing behind it.
	After string
}

func (e *MoreError) Error() string { return "there may be more after " + e.After }

// Matches reports whether f lets i through, wherever that is in the list.
func (f Filter) Matches(i Item) bool {
	var repo Repository
	var state, account, region string
	var made time.Time
	switch i := i.(type) {
	case *Request:
		repo, state, account, region, made = i.Repository, string(i.State), i.Account, i.Region, i.CreatedAt
	case *Runner:
		repo, state, account, region, made = i.Repository, string(i.State), i.Account, i.Region, i.CreatedAt
	case *Usage:
		repo, made = i.Repository, i.begins()
	}
	is := func(want, got string) bool { return want == "" || want == got }
	return is(f.Repository, repo.ID) && (f.Name == "" || strings.EqualFold(f.Name, repo.Name)) &&
		(len(f.States) == 0 || slices.Contains(f.States, state)) && is(f.Account, account) && is(f.Region, region) &&
		is(f.FoundBy, FoundBy(i)) && !made.Before(f.Since)
}

// Whole reports whether f asks for what no index has, so that each item is read.
func (f Filter) Whole() bool { return f.Name != "" || f.Account != "" || f.Region != "" }

// Live reports whether f asks for runners that are not over, and for no others: these have
// an index of their own, so that they are found at once behind any number of others.
func (f Filter) Live() bool {
	return f.Kind == KindRunner && f.Repository == "" && f.FoundBy == "" && len(f.States) > 0 &&
		!slices.ContainsFunc(f.States, func(s string) bool { return RunnerState(s).Final() })
}

// From returns the least Cursor of what f lets through, by its Since. Empty: any.
func (f Filter) From() string {
	if f.Since.IsZero() {
		return ""
	}
	return cursor(f.Since, "")
}

// Cursor returns the place of an item in every List that holds it.
func Cursor(i Item) string {
	switch i := i.(type) {
	case *Request:
		return cursor(i.CreatedAt, i.ID)
	case *Runner:
		return cursor(i.CreatedAt, i.ID)
	case *Usage:
		return cursor(i.begins(), i.ID)
	}
	return ""
}

// cursorTime has a fixed width, so that cursors sort as their times do.
const cursorTime = "2006-01-02T15:04:05.000000000Z"

func cursor(at time.Time, id string) string { return at.UTC().Format(cursorTime) + "#" + id }

// Writer is one invocation's way to commit: it signs what it writes. It is
// safe for concurrent use.
type Writer struct {
	Store
	invocation string
	now        func() time.Time
	commits    atomic.Int64
}

// NewWriter returns a Writer to s for the invocation of that id, which no
// other invocation, in any process, may have. now stamps what is written.
func NewWriter(s Store, invocation string, now func() time.Time) *Writer {
	return &Writer{Store: s, invocation: invocation, now: now}
}

// Commit signs the changes, and commits them as Store.Commit does.
func (s *Writer) Commit(ctx context.Context, changes ...Change) error {
	writer := fmt.Sprintf("%s/%d", s.invocation, s.commits.Add(1))
	now := s.now().UTC()
	for _, c := range changes {
		if !c.CheckOnly {
			m := c.Item.Base()
			m.Writer, m.UpdatedAt = writer, now
		}
	}
	return s.Store.Commit(ctx, changes...)
}

// Read gets the one item of type T that id names; absent, it has Version 0.
func Read[T any, P interface {
	*T
	Item
}](ctx context.Context, s Store, id string) (T, error) {
	var item T
	P(&item).name(id)
	got, err := s.Get(ctx, P(&item).Ref())
	if err != nil {
		return item, err
	}
	return *got[0].(P), nil
}
