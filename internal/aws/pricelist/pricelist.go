// Package pricelist reads on-demand prices from AWS's public price list: files that
// anybody can fetch by HTTPS, without credentials
// (https://docs.aws.amazon.com/awsaccountbilling/latest/aboutv2/using-the-aws-price-list-bulk-api-fetching-price-list-files-manually.html).
//
// The list of EC2 in one region is a table of up to 300 MB, of which a thousand rows count
// here. So it is read as a stream and in parts: a reading ends when its context does, and the
// next one continues behind the last row that was read, by a range of the same version.
// Memory is bounded by the longest row, whatever the file is.
package pricelist

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"

	"github.com/alphagov/github-actions-runner-orchestration/store"
)

// AWS is where the price list of all regions of the partitions aws and aws-us-gov is. That of
// China is elsewhere and in another currency: its prices are not known.
const AWS = "https://pricing.us-east-1.amazonaws.com"

const (
	// index names the newest file of each region.
	index = "/offers/v1.0/aws/AmazonEC2/current/region_index.json"
	// maxIndex bounds the index: 300 bytes for each of a hundred regions and local zones.
	maxIndex = 1 << 20
	// maxRow bounds a row, and what comes before the first: both have 1 to 4 KB.
	maxRow = 64 << 10
	// maxTypes bounds what one reading keeps: a region has 1,300 instance types.
	maxTypes = 5000
)

// Reader reads the price list. It is safe for concurrent use.
type Reader struct {
	http *http.Client
	base string
}

// New returns a Reader that fetches with c from base: AWS, or a copy of it. The Timeout of c
// should be zero: it would break a reading off, where the context's deadline ends it in order.
func New(c *http.Client, base string) *Reader { return &Reader{c, base} }

// Newest returns the path of the newest price file of a region, which has its version in it.
func (r *Reader) Newest(ctx context.Context, region string) (string, error) {
	body, _, err := r.get(ctx, index, "", http.StatusOK)
	if err != nil {
		return "", fmt.Errorf("read the index of AWS's price list: %w", err)
	}
	defer body.Close()
	var all struct {
		Regions map[string]struct {
			CurrentVersionURL string `json:"currentVersionUrl"`
		} `json:"regions"`
	}
	if err := json.NewDecoder(io.LimitReader(body, maxIndex)).Decode(&all); err != nil {
		return "", fmt.Errorf("read the index of AWS's price list: %w", err)
	}
	path, ok := strings.CutSuffix(all.Regions[region].CurrentVersionURL, ".json")
	if !ok || !strings.HasPrefix(path, "/offers/") {
		return "", fmt.Errorf("AWS's price list has no file of region %q", region)
	}
	return path + ".csv", nil
}

// Read reads on in a price file until it ends, or until ctx does. It returns the prices of
// Linux machines in what it read, by instance type, and how far the file is read then. It
// fails only if it could read no row.
func (r *Reader) Read(ctx context.Context, file store.PriceFile) (map[string]store.MicroUSD, store.PriceFile, error) {
	failed := func(err error) (map[string]store.MicroUSD, store.PriceFile, error) {
		return nil, file, fmt.Errorf("read AWS's price file %s from byte %d: %w", file.Path, file.Offset, err)
	}
	cols, first, err := r.columns(ctx, file.Path)
	if err != nil {
		return failed(err)
	}
	from := max(file.Offset, first)
	body, total, err := r.get(ctx, file.Path, fmt.Sprintf("bytes=%d-", from), http.StatusPartialContent)
	if err != nil {
		return failed(err)
	}
	defer body.Close()
	rows := newRows(body, total-from)
	hour, err := cols.prices(rows)
	next := store.PriceFile{Path: file.Path, Offset: from + rows.read, Whole: from+rows.read == total}
	if rows.read == 0 && err != nil {
		return failed(err)
	}
	return hour, next, nil
}

// columns reads the head of a file: where the columns are that count, and at which byte the
// first row begins.
func (r *Reader) columns(ctx context.Context, path string) (columns, int64, error) {
	body, total, err := r.get(ctx, path, fmt.Sprintf("bytes=0-%d", maxRow-1), http.StatusPartialContent)
	if err != nil {
		return columns{}, 0, err
	}
	defer body.Close()
	rows := newRows(body, total)
	for rows.next() {
		if bytes.HasPrefix(rows.row, []byte(`"SKU",`)) {
			cols, err := columnsOf(rows.row)
			return cols, rows.read, err
		}
	}
	return columns{}, 0, errors.Join(errors.New("no row begins with SKU, as that of the columns' names does"), rows.err)
}

// get fetches a file, or of it a range that may end before the file does. It returns how many
// bytes the whole of a range's file has.
func (r *Reader) get(ctx context.Context, path, byteRange string, want int) (io.ReadCloser, int64, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, r.base+path, nil)
	if err != nil {
		return nil, 0, err
	}
	if byteRange != "" {
		req.Header.Set("Range", byteRange)
		req.Header.Set("Accept-Encoding", "identity") // a range of what was compressed would be another
	}
	resp, err := r.http.Do(req)
	if err != nil {
		return nil, 0, err
	}
	var total int64
	if want == http.StatusPartialContent && resp.StatusCode == want {
		_, size, _ := strings.Cut(resp.Header.Get("Content-Range"), "/")
		if _, err := fmt.Sscan(size, &total); err != nil {
			_ = resp.Body.Close()
			return nil, 0, fmt.Errorf("GET %s: Content-Range %q does not tell the size of the file", path, resp.Header.Get("Content-Range"))
		}
	}
	if resp.StatusCode != want {
		_ = resp.Body.Close()
		return nil, 0, fmt.Errorf("GET %s: the answer is %s, want %d %s", path, resp.Status, want, http.StatusText(want))
	}
	return resp.Body, total, nil
}

// rows are the lines of a file, whole ones only: the last one needs no line break if it ends
// where the file does.
type rows struct {
	in   *bufio.Scanner
	end  int64  // how many bytes there are to the end of the file
	row  []byte // without its line break; until the next one
	read int64  // bytes of all rows so far, with their line breaks
	err  error
}

func newRows(r io.Reader, end int64) *rows {
	s := &rows{in: bufio.NewScanner(r), end: end}
	s.in.Buffer(make([]byte, maxRow), maxRow)
	s.in.Split(s.split)
	return s
}

// split is a bufio.SplitFunc whose tokens have their line break.
func (s *rows) split(data []byte, atEOF bool) (int, []byte, error) {
	n, line, err := bufio.ScanLines(data, false)
	if n > 0 || err != nil {
		return n, data[:n], err
	}
	if atEOF && line == nil && s.read+int64(len(data)) == s.end && len(data) > 0 {
		return len(data), data, nil
	}
	return 0, nil, nil
}

func (s *rows) next() bool {
	if !s.in.Scan() {
		s.err = s.in.Err()
		return false
	}
	line := s.in.Bytes()
	s.read += int64(len(line))
	s.row = bytes.TrimRight(line, "\r\n")
	return true
}
