package pricelist

import (
	"bytes"
	"fmt"
	"slices"
	"strings"

	"github.com/alphagov/github-actions-runner-orchestration/store"
)

// What a row must say to be the price of an hour of a Linux machine with shared tenancy,
// that runs and has no software which is paid for. TermType comes first: most rows are of
// reservations, and end there.
var wanted = []struct {
	column string
	values []string
}{
	{"TermType", []string{"OnDemand"}},
	{"Unit", []string{"Hrs"}},
	{"Currency", []string{"USD"}},
	{"Product Family", []string{"Compute Instance", "Compute Instance (bare metal)"}},
	{"Location Type", []string{"AWS Region"}},
	{"Tenancy", []string{"Shared"}},
	{"Operating System", []string{"Linux"}},
	{"License Model", []string{"No License required"}},
	{"CapacityStatus", []string{"Used"}},
	{"MarketOption", []string{"OnDemand"}},
	{"Pre Installed S/W", []string{"NA"}},
}

const (
	typeColumn  = "Instance Type"
	priceColumn = "PricePerUnit"
)

// isType reports whether s has the form of an instance type: two words of at most thirty
// small letters, digits and hyphens, with a dot between them.
func isType(s string) bool {
	family, size, ok := strings.Cut(s, ".")
	for _, word := range []string{family, size} {
		ok = ok && word != "" && len(word) <= 30 && strings.Trim(word, "abcdefghijklmnopqrstuvwxyz0123456789-") == ""
	}
	return ok
}

// columns say where a row has what: for each column of the file, from the left, the values
// that are wanted there. nil: any.
type columns struct {
	wanted    [][][]byte
	typ, cost int
}

// columnsOf reads the row with the names of the columns. It fails for a file without one that
// counts: a row would then seem to say what it does not.
func columnsOf(head []byte) (columns, error) {
	var names []string
	for more := head; more != nil; {
		var name []byte
		name, more = field(more)
		names = append(names, string(name))
	}
	c := columns{typ: slices.Index(names, typeColumn), cost: slices.Index(names, priceColumn), wanted: make([][][]byte, len(names))}
	missing := ""
	for _, w := range wanted {
		i := slices.Index(names, w.column)
		if i < 0 {
			missing = w.column
			continue
		}
		for _, v := range w.values {
			c.wanted[i] = append(c.wanted[i], []byte(v))
		}
	}
	switch {
	case c.typ < 0:
		missing = typeColumn
	case c.cost < 0:
		missing = priceColumn
	}
	if missing != "" {
		return columns{}, fmt.Errorf("the price file has no column %q: its form has changed", missing)
	}
	return c, nil
}

// prices reads rows to their end.
func (c columns) prices(rows *rows) (map[string]store.MicroUSD, error) {
	hour := map[string]store.MicroUSD{}
	for rows.next() {
		typ, usd, ok := c.price(rows.row)
		if ok && len(hour) < maxTypes {
			hour[typ] = usd
		}
	}
	return hour, rows.err
}

// price returns what a row says of the price of an hour; ok is false for a row of something
// else, and for one that cannot be read.
func (c columns) price(row []byte) (typ string, usd store.MicroUSD, ok bool) {
	for i, more := 0, row; more != nil && i < len(c.wanted); i++ {
		var value []byte
		value, more = field(more)
		if w := c.wanted[i]; w != nil && !slices.ContainsFunc(w, func(v []byte) bool { return bytes.Equal(v, value) }) {
			return "", 0, false
		}
		switch i {
		case c.typ:
			typ = string(value)
		case c.cost:
			usd, ok = store.ParseUSD(string(value))
		}
		if more == nil && i < len(c.wanted)-1 {
			return "", 0, false // a row that was cut
		}
	}
	return typ, usd, ok && isType(typ)
}

// field returns the first field of a row, and what comes behind its comma; nil: nothing does.
// The fields are those of RFC 4180, but that a quote inside of one stays doubled: no value
// that counts has one.
func field(row []byte) (value, more []byte) {
	if len(row) == 0 || row[0] != '"' {
		value, more, found := bytes.Cut(row, []byte(","))
		if !found {
			return value, nil
		}
		return value, nonNil(more)
	}
	for i := 1; i < len(row); i++ {
		switch {
		case row[i] != '"':
		case i+1 < len(row) && row[i+1] == '"':
			i++
		case i+1 < len(row) && row[i+1] == ',':
			return row[1:i], nonNil(row[i+2:])
		default:
			return row[1:i], nil
		}
	}
	return row[1:], nil // it has no end
}

// nonNil keeps an empty last field apart from none.
func nonNil(b []byte) []byte {
	if b == nil {
		return []byte{}
	}
	return b
}
