package store

import (
	"encoding/json"
	"fmt"
)

// Encode returns the JSON object that stands for i in every backend: its
// member names are the attribute names of the table.
func Encode(i Item) ([]byte, error) {
	b, err := json.Marshal(i)
	if err != nil {
		return nil, fmt.Errorf("encode %s: %w", i.Ref(), err)
	}
	return b, nil
}

// Decode is the inverse of Encode for an item that ref names.
func Decode(ref Ref, b []byte) (Item, error) {
	i, err := New(ref)
	if err != nil {
		return nil, err
	}
	if err := json.Unmarshal(b, i); err != nil {
		return nil, fmt.Errorf("decode %s: %w", ref, err)
	}
	if i.Ref() != ref {
		return nil, fmt.Errorf("decode %s: the item says that it is %s", ref, i.Ref())
	}
	return i, nil
}
