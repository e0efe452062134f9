package dynamostore

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb/types"

	"github.com/alphagov/github-actions-runner-orchestration/store"
)

// member is one change, encoded.
type member struct {
	ref     store.Ref
	version int64      // as it was read
	put     attributes // nil: a check alone
	signed  bool       // a put that can be told from another's
}

// Commit implements store.Store.
func (s *Store) Commit(ctx context.Context, changes ...store.Change) error {
	if err := ctx.Err(); err != nil {
		return fmt.Errorf("commit: %w", err)
	}
	members, err := encodeAll(changes)
	if err != nil {
		return fmt.Errorf("commit: %w", err)
	}
	var lost []store.Item
	switch {
	case len(members) > 1:
		lost, err = s.transact(ctx, members)
	case members[0].put == nil:
		lost, err = s.check(ctx, members[0])
	default:
		lost, err = s.put(ctx, members[0])
	}
	if err != nil {
		return fmt.Errorf("commit %s: %w", names(members), s.explain(err))
	}
	if len(lost) > 0 && !written(changes, lost) {
		return &store.ConflictError{Current: lost}
	}
	for _, c := range changes {
		if !c.CheckOnly {
			c.Item.Base().Version++
		}
	}
	return nil
}

// encodeAll encodes what the contract allows.
func encodeAll(changes []store.Change) ([]member, error) {
	if err := store.Validate(changes); err != nil {
		return nil, err
	}
	members := make([]member, len(changes))
	for n, c := range changes {
		base := c.Item.Base()
		m := member{ref: c.Item.Ref(), version: base.Version}
		if !c.CheckOnly {
			var err error
			if m.put, err = encode(c.Item); err != nil {
				return nil, err
			}
			m.signed = base.Writer != ""
		}
		members[n] = m
	}
	return members, nil
}

// written reports whether one of the items that a commit lost to is its own work.
func written(changes []store.Change, lost []store.Item) bool {
	current := make(map[store.Ref]*store.Meta, len(lost))
	for _, i := range lost {
		current[i.Ref()] = i.Base()
	}
	return slices.ContainsFunc(changes, func(c store.Change) bool {
		now, ok := current[c.Item.Ref()]
		return ok && c.Wrote(now)
	})
}

// names tells people what a commit is about.
func names(members []member) string {
	const most = 4
	var out []string
	for _, m := range members[:min(most, len(members))] {
		out = append(out, m.ref.String())
	}
	if more := len(members) - most; more > 0 {
		out = append(out, fmt.Sprintf("%d more", more))
	}
	return strings.Join(out, ", ")
}

// condition demands that the stored item has the version that was read.
func (m member) condition() (expression *string, names map[string]string, values attributes) {
	if m.version == 0 {
		return new("attribute_not_exists(#item)"), map[string]string{"#item": attrItem}, nil
	}
	return new("#version = :version"), map[string]string{"#version": attrVersion}, attributes{":version": number(m.version)}
}

// check compares one item with what was read of it. It returns the item when it
// has changed.
func (s *Store) check(ctx context.Context, m member) ([]store.Item, error) {
	items, err := s.Get(ctx, m.ref)
	if err != nil || items[0].Base().Version == m.version {
		return nil, err
	}
	return items, nil
}

// put writes one item, or returns the one that stands in its way.
func (s *Store) put(ctx context.Context, m member) (lost []store.Item, err error) {
	condition, names, values := m.condition()
	in := &dynamodb.PutItemInput{
		TableName: &s.table, Item: m.put,
		ConditionExpression: condition, ExpressionAttributeNames: names, ExpressionAttributeValues: values,
		ReturnValuesOnConditionCheckFailure: types.ReturnValuesOnConditionCheckFailureAllOld,
	}
	err = s.try(ctx, m.signed, func() error {
		_, err := s.api.put(ctx, in)
		failed, ok := errors.AsType[*types.ConditionalCheckFailedException](err)
		if !ok {
			return err
		}
		current, err := decode(m.ref, failed.Item)
		lost = []store.Item{current}
		return err
	})
	return lost, err
}

// transact writes all members, or returns the items that stand in their way.
func (s *Store) transact(ctx context.Context, members []member) (lost []store.Item, err error) {
	token, err := s.token()
	if err != nil {
		return nil, err
	}
	in := &dynamodb.TransactWriteItemsInput{
		ClientRequestToken: &token,
		TransactItems:      make([]types.TransactWriteItem, len(members)),
	}
	for n, m := range members {
		in.TransactItems[n] = s.transactItem(m)
	}
	err = s.try(ctx, true, func() error {
		_, err := s.api.transact(ctx, in)
		cancelled, ok := errors.AsType[*types.TransactionCanceledException](err)
		if !ok {
			return err
		}
		lost, err = s.reasons(ctx, members, cancelled)
		return err
	})
	return lost, err
}

func (s *Store) transactItem(m member) types.TransactWriteItem {
	condition, names, values := m.condition()
	const show = types.ReturnValuesOnConditionCheckFailureAllOld
	if m.put == nil {
		return types.TransactWriteItem{ConditionCheck: &types.ConditionCheck{
			TableName: &s.table, Key: key(m.ref), ReturnValuesOnConditionCheckFailure: show,
			ConditionExpression: condition, ExpressionAttributeNames: names, ExpressionAttributeValues: values,
		}}
	}
	return types.TransactWriteItem{Put: &types.Put{
		TableName: &s.table, Item: m.put, ReturnValuesOnConditionCheckFailure: show,
		ConditionExpression: condition, ExpressionAttributeNames: names, ExpressionAttributeValues: values,
	}}
}

// token returns what DynamoDB knows a transaction by, should it come twice.
func (s *Store) token() (string, error) {
	var b [16]byte // 32 characters: 36 are allowed
	if _, err := io.ReadFull(s.random, b[:]); err != nil {
		return "", fmt.Errorf("draw a request token: %w", err)
	}
	return hex.EncodeToString(b[:]), nil
}

// The codes of a cancellation reason
// (https://docs.aws.amazon.com/amazondynamodb/latest/APIReference/API_TransactWriteItems.html).
const (
	reasonNone     = "None"
	reasonLost     = "ConditionalCheckFailed"
	reasonMet      = "TransactionConflict"
	reasonThrottle = "ThrottlingError"
	reasonCapacity = "ProvisionedThroughputExceeded"
)

// reasons returns the items that a cancelled transaction lost to. If it lost to
// none, it is an error: errMet or errBusy when another try may do better.
func (s *Store) reasons(ctx context.Context, members []member, cancelled *types.TransactionCanceledException) ([]store.Item, error) {
	if len(cancelled.CancellationReasons) != len(members) {
		return nil, fmt.Errorf("%d changes were cancelled for %d reasons: %w", len(members), len(cancelled.CancellationReasons), cancelled)
	}
	var lost []store.Item
	var open []member // not compared
	why := errMet
	var other error
	for n, reason := range cancelled.CancellationReasons {
		switch code := aws.ToString(reason.Code); code {
		case reasonNone, "":
		case reasonLost:
			current, err := decode(members[n].ref, reason.Item)
			if err != nil {
				return nil, err
			}
			lost = append(lost, current)
		case reasonMet:
			open = append(open, members[n])
		case reasonThrottle, reasonCapacity:
			open, why = append(open, members[n]), errBusy
		default:
			other = fmt.Errorf("%s: %s: %s: %w", members[n].ref, code, aws.ToString(reason.Message), cancelled)
		}
	}
	switch {
	case other != nil && lost == nil:
		return nil, other
	case lost == nil && open == nil:
		return nil, cancelled
	case lost == nil:
		return nil, fmt.Errorf("%w: %w", why, cancelled)
	}
	return s.complete(ctx, members, lost, open)
}

// complete adds the members that DynamoDB did not compare. The commit is
// lost already, so a read tells as much as another try, and is in nobody's way.
func (s *Store) complete(ctx context.Context, members []member, lost []store.Item, open []member) ([]store.Item, error) {
	if len(open) == 0 {
		return lost, nil
	}
	refs := make([]store.Ref, len(open))
	for n, m := range open {
		refs[n] = m.ref
	}
	items, err := s.Get(ctx, refs...)
	if err != nil {
		return nil, err
	}
	current := make(map[store.Ref]store.Item, len(members))
	for _, i := range lost {
		current[i.Ref()] = i
	}
	for n, i := range items {
		if i.Base().Version != open[n].version {
			current[i.Ref()] = i
		}
	}
	lost = lost[:0]
	for _, m := range members { // in their order
		if i, ok := current[m.ref]; ok {
			lost = append(lost, i)
		}
	}
	return lost, nil
}
