package client

import (
	"encoding/binary"
	"io"
	"net/http"
	"strconv"
	"time"
)

const (
	// maxTries and the pauses between them ride out half a minute of trouble: a
	// deploy, a throttled burst, a lost connection.
	maxTries  = 8
	firstWait = 250 * time.Millisecond
	lastWait  = 8 * time.Second
	// maxRetryAfter is the longest pause, in seconds, that an answer can ask for:
	// more is rather a mistake than a plan.
	maxRetryAfter = 60
)

// backoff returns the pause before try+1: twice as long each time, of which a
// random half, so that many clients that failed together do not return together.
func (c *Client) backoff(try int) time.Duration {
	d := min(firstWait<<try, lastWait)
	var b [8]byte
	if _, err := io.ReadFull(c.random, b[:]); err != nil {
		return d
	}
	return d/2 + time.Duration(binary.BigEndian.Uint64(b[:])%uint64(d/2+1))
}

// retryAfter returns what the header Retry-After says in seconds, within bounds.
// Zero: it says nothing. The API and AWS never say it as a date.
func retryAfter(h http.Header) time.Duration {
	s, err := strconv.Atoi(h.Get("Retry-After"))
	if err != nil || s <= 0 {
		return 0
	}
	return time.Duration(min(s, maxRetryAfter)) * time.Second
}
