package main

import (
	"net"
	"strings"
	"testing"
	"text/tabwriter"
	"time"
)

func TestColoursLeaveColumnsStraight(t *testing.T) {
	for _, p := range []paint{false, true} {
		var b strings.Builder
		tw := tabwriter.NewWriter(&b, 0, 0, 2, ' ', 0)
		for _, state := range []string{"STATE", "ready", "cancelled", "draining"} {
			if _, err := tw.Write([]byte(p.cell(state) + "\t|\n")); err != nil {
				t.Fatal(err)
			}
		}
		if err := tw.Flush(); err != nil {
			t.Fatal(err)
		}
		plain := strings.NewReplacer("\x1b[39m", "", "\x1b[32m", "", "\x1b[33m", "", "\x1b[0m", "").Replace(b.String())
		if want := "STATE      |\nready      |\ncancelled  |\ndraining   |\n"; plain != want {
			t.Errorf("with colours %v, the column is\n%swant\n%s", p, plain, want)
		}
	}
}

func TestStatesHaveColoursOnATerminalAlone(t *testing.T) {
	for _, c := range []struct {
		p           paint
		state, want string
	}{
		{true, "ready", "\x1b[32mready\x1b[0m"},
		{true, "failed", "\x1b[31mfailed\x1b[0m"},
		{true, "launched", "launched"},
		{false, "ready", "ready"},
	} {
		if got := c.p.state(c.state); got != c.want {
			t.Errorf("paint(%v).state(%s) = %q, want %q", c.p, c.state, got, c.want)
		}
	}
	if paintFor(new(strings.Builder)) {
		t.Error("what is no file is painted")
	}
}

func TestAddressOfAllInterfacesIsLocalhost(t *testing.T) {
	for addr, want := range map[string]string{
		"127.0.0.1:80": "http://127.0.0.1:80", "[::1]:80": "http://[::1]:80",
		"0.0.0.0:80": "http://localhost:80", "[::]:80": "http://localhost:80",
	} {
		a, err := net.ResolveTCPAddr("tcp", addr)
		if err != nil {
			t.Fatal(err)
		}
		if got := urlOf(a); got != want {
			t.Errorf("urlOf(%s) = %s, want %s", addr, got, want)
		}
	}
}

func TestOnlyLoopbackIsListenedAtUnasked(t *testing.T) {
	for _, c := range []struct {
		addr     string
		anywhere bool
		ok       bool
	}{
		{"127.0.0.1:0", false, true}, {"127.0.0.2:0", false, true}, {"[::1]:0", false, true}, {"localhost:0", false, true},
		{"0.0.0.0:0", false, false}, {"[::]:0", false, false}, {":0", false, false}, {"10.0.0.1:0", false, false}, {"example.org:0", false, false},
		{"localhost.example.org:0", false, false}, {"0.0.0.0:0", true, true}, {"no port", true, false},
	} {
		if err := checkAddr(c.addr, c.anywhere); (err == nil) != c.ok {
			t.Errorf("checkAddr(%s, %v) = %v, want ok %v", c.addr, c.anywhere, err, c.ok)
		}
	}
}

func TestWholeSecondsAreTaken(t *testing.T) {
	for d, want := range map[time.Duration]int{0: 0, time.Second: 1, 90 * time.Minute: 5400, time.Millisecond: -1, -time.Second: -1} {
		got, err := seconds("timeout", d)
		if err != nil {
			got = -1
		}
		if got != want {
			t.Errorf("seconds(%s) = %d (%v), want %d", d, got, err, want)
		}
	}
}
