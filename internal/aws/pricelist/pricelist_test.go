package pricelist

import (
	"bytes"
	"context"
	"encoding/csv"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/alphagov/github-actions-runner-orchestration/internal/aws/pricelist/simprices"
	"github.com/alphagov/github-actions-runner-orchestration/internal/local/memhttp"
	"github.com/alphagov/github-actions-runner-orchestration/store"
)

// real is the head of AWS's file of 12 September 2025, with rows of many kinds that say
// nothing of Linux machines, and three in their form that do.
func real(t testing.TB) []byte {
	t.Helper()
	b, err := os.ReadFile("testdata/index.csv")
	if err != nil {
		t.Fatal(err)
	}
	return b
}

var realPrices = map[string]store.MicroUSD{"c5d.2xlarge": 384_000, "m7i.large": 100_800, "c7i.metal-24xl": 4_284_000}

// serve returns a Reader of one file under any path.
func serve(file []byte) *Reader {
	return New(memhttp.Client(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		http.ServeContent(w, r, "index.csv", time.Time{}, bytes.NewReader(file))
	})), AWS)
}

const path = "/offers/v1.0/aws/AmazonEC2/20250912225308/us-east-1/index.csv"

func TestPricesOfLinuxMachinesAloneAreRead(t *testing.T) {
	file := real(t)
	got, next, err := serve(file).Read(t.Context(), store.PriceFile{Path: path})
	if err != nil || !maps.Equal(got, realPrices) {
		t.Errorf("Read = %v, %v; want %v", got, err, realPrices)
	}
	if want := (store.PriceFile{Path: path, Offset: int64(len(file)), Whole: true}); next != want {
		t.Errorf("the file is read to %+v, want %+v", next, want)
	}
	if unbroken, next, err := serve(bytes.TrimSuffix(file, []byte("\n"))).Read(t.Context(), store.PriceFile{Path: path}); err != nil || !next.Whole || !maps.Equal(unbroken, realPrices) {
		t.Errorf("without the last line break: %v, %+v, %v; want the same", unbroken, next, err)
	}
}

func TestNewestFileOfARegion(t *testing.T) {
	r := New(memhttp.Client(simprices.Handler()), AWS)
	got, err := r.Newest(t.Context(), "eu-west-2")
	if want := "/offers/v1.0/aws/AmazonEC2/20260101000000/eu-west-2/index.csv"; got != want || err != nil {
		t.Errorf("Newest = %q, %v; want %q", got, err, want)
	}
	if other, err := r.Newest(t.Context(), "cn-north-1"); err == nil || !strings.Contains(err.Error(), `no file of region "cn-north-1"`) {
		t.Errorf("Newest of a region that the list does not have = %q, %v; want an error that names it", other, err)
	}
	hour, next, err := r.Read(t.Context(), store.PriceFile{Path: strings.Replace(got, "eu-west-2", "cn-north-1", 1)})
	if err == nil || hour != nil || next.Offset != 0 {
		t.Errorf("Read of no file = %v, %+v, %v; want an error", hour, next, err)
	}
	hour, _, err = r.Read(t.Context(), store.PriceFile{Path: got})
	if err != nil || hour["c7g.large"] != simprices.Hour("c7g.large") || hour["c7g.large"] == 0 || len(hour) < 100 {
		t.Errorf("Read = %d prices, c7g.large %v, %v; want those of the simulation", len(hour), hour["c7g.large"], err)
	}
}

// cutting breaks every answer to a range that has no end after so many bytes.
type cutting struct {
	next  http.RoundTripper
	after int64
	calls int
}

func (c *cutting) RoundTrip(r *http.Request) (*http.Response, error) {
	resp, err := c.next.RoundTrip(r)
	if err == nil && strings.HasSuffix(r.Header.Get("Range"), "-") {
		c.calls++
		resp.Body = io.NopCloser(io.MultiReader(io.LimitReader(resp.Body, c.after), broken{}))
	}
	return resp, err
}

type broken struct{}

func (broken) Read([]byte) (int, error) { return 0, errors.New("connection reset") }

func TestFileIsReadInParts(t *testing.T) {
	file := real(t)
	for _, after := range []int64{2000, 3001, 9999} { // a row has up to 800 bytes
		r := serve(file)
		cut := &cutting{next: r.http.Transport, after: after}
		r.http.Transport = cut
		got, at := map[string]store.MicroUSD{}, store.PriceFile{Path: path}
		for !at.Whole {
			part, next, err := r.Read(t.Context(), at)
			if err != nil || next.Offset <= at.Offset || cut.calls > 100 {
				t.Fatalf("after %d bytes each: Read from %d = %+v, %v; want that it moves on", after, at.Offset, next, err)
			}
			for typ, usd := range part {
				if got[typ] != 0 {
					t.Errorf("%s is read twice", typ)
				}
				got[typ] = usd
			}
			at = next
		}
		if !maps.Equal(got, realPrices) || cut.calls < 2 {
			t.Errorf("in %d parts: %v, want %v", cut.calls, got, realPrices)
		}
	}
	r := serve(file)
	r.http.Transport = &cutting{next: r.http.Transport, after: 10}
	if hour, next, err := r.Read(t.Context(), store.PriceFile{Path: path}); err == nil || hour != nil || next.Offset != 0 {
		t.Errorf("not even one row: %v, %+v, %v; want the error", hour, next, err)
	}
}

// ending is a body that continues without end, until its context does.
type ending struct {
	ctx context.Context
	row []byte
	n   int
	end context.CancelFunc
}

func (e *ending) Read(b []byte) (int, error) {
	if e.n++; e.n > 3 {
		e.end()
	}
	if err := e.ctx.Err(); err != nil {
		return 0, err
	}
	return copy(b, e.row), nil
}

func TestReadingEndsWithItsContext(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	file := real(t)
	row := append([]byte(strings.Split(string(file), "\n")[9]), '\n')
	r := serve(file)
	inner := r.http.Transport
	r.http.Transport = trip(func(req *http.Request) (*http.Response, error) {
		resp, err := inner.RoundTrip(req)
		if err == nil && strings.HasSuffix(req.Header.Get("Range"), "-") {
			resp.Header.Set("Content-Range", "bytes 0-999999999/1000000000")
			resp.Body = io.NopCloser(&ending{ctx: ctx, row: row, end: cancel})
		}
		return resp, err
	})
	hour, next, err := r.Read(ctx, store.PriceFile{Path: path})
	if err != nil || next.Whole || next.Offset < 3*int64(len(row)) || hour["c5d.2xlarge"] != 384_000 {
		t.Errorf("Read = %v, %+v, %v; want what was read until the end of the context", hour, next, err)
	}
}

type trip func(*http.Request) (*http.Response, error)

func (f trip) RoundTrip(r *http.Request) (*http.Response, error) { return f(r) }

func TestFilesOfAnotherFormAreRefused(t *testing.T) {
	file := string(real(t))
	for name, c := range map[string]struct {
		file, want string
	}{
		"Empty":    {"", "want 206"},
		"NoHead":   {strings.Repeat("\"a\",\"b\"\n", 10), "no row begins with SKU"},
		"NoColumn": {strings.Replace(file, `"Tenancy",`, `"Tenure",`, 1), `no column "Tenancy"`},
		"NoType":   {strings.Replace(file, `"Instance Type",`, `"Type",`, 1), `no column "Instance Type"`},
		"NoPrice":  {strings.Replace(file, `"PricePerUnit",`, `"Price",`, 1), `no column "PricePerUnit"`},
		"LongRow":  {strings.SplitAfter(file, "VPCNetworkingSupport\"\n")[0] + strings.Repeat("x", 2*maxRow), "too long"},
	} {
		t.Run(name, func(t *testing.T) {
			hour, _, err := serve([]byte(c.file)).Read(t.Context(), store.PriceFile{Path: path})
			if err == nil || !strings.Contains(err.Error(), c.want) || hour != nil {
				t.Errorf("Read = %v, %v; want an error with %q", hour, err, c.want)
			}
		})
	}
	whole := New(memhttp.Client(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, file) })), AWS)
	if hour, _, err := whole.Read(t.Context(), store.PriceFile{Path: path}); err == nil || !strings.Contains(err.Error(), "want 206") {
		t.Errorf("Read of a server that knows no ranges = %v, %v; want an error", hour, err)
	}
	for _, index := range []string{"", "{", `{"regions": {"eu-west-2": {"currentVersionUrl": "https://elsewhere/index.json"}}}`} {
		r := New(memhttp.Client(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, index) })), AWS)
		if got, err := r.Newest(t.Context(), "eu-west-2"); err == nil {
			t.Errorf("Newest of index %q = %q, want an error", index, got)
		}
	}
}

// FuzzField holds our fields to those of encoding/csv, of which ours are the part that AWS
// uses.
func FuzzField(f *testing.F) {
	f.Add(`"SKU",,"a ""b"", c",1,""`)
	f.Add(`"a",`)
	f.Add(`,`)
	f.Fuzz(func(t *testing.T, row string) {
		var got []string
		for more := []byte(row); more != nil; {
			var v []byte
			v, more = field(more)
			got = append(got, strings.ReplaceAll(string(v), `""`, `"`))
		}
		if strings.ContainsAny(row, "\r\n") {
			return // rows have none
		}
		want, err := csv.NewReader(strings.NewReader(row)).Read()
		if err == nil && strings.Join(got, "\x00") != strings.Join(want, "\x00") {
			t.Errorf("fields of %q = %q, want %q", row, got, want)
		}
	})
}

// FuzzRead holds that whatever a server sends, a reading neither fails hard nor goes back.
func FuzzRead(f *testing.F) {
	file := real(f)
	f.Add(file, int64(0))
	f.Add(file[:len(file)/2], int64(5000))
	f.Add([]byte("\"SKU\",\n\n\"\n"), int64(1))
	f.Fuzz(func(t *testing.T, file []byte, from int64) {
		hour, next, err := serve(file).Read(t.Context(), store.PriceFile{Path: path, Offset: from})
		if err == nil && (next.Offset < from || next.Offset > int64(len(file)) || next.Whole != (next.Offset == int64(len(file)))) {
			t.Errorf("Read of %d bytes from %d = %+v", len(file), from, next)
		}
		for typ, usd := range hour {
			if usd <= 0 || typ == "" {
				t.Errorf("%q costs %d", typ, usd)
			}
		}
	})
}
