package main

import (
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"path/filepath"
	"runtime/debug"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"github.com/alphagov/github-actions-runner-orchestration/internal/fleet/simfleet"
	"github.com/alphagov/github-actions-runner-orchestration/internal/local"
	"github.com/alphagov/github-actions-runner-orchestration/store"
)

// githubLost is how long GitHub takes to give up a job whose machine is gone. It
// is part of what --speed divides, as all limits are: until then the runner that
// had the job cannot be deregistered.
const githubLost = 10 * time.Minute

// localFlags are the flags of local.
type localFlags struct {
	addr, dir, issuer, audience, githubURL, githubToken string

	anywhere, ec2Pacing, quiet bool

	boot, jobs time.Duration
	empty      []string
	speed      int
}

func localCommand() *cobra.Command {
	var l localFlags
	c := &cobra.Command{
		Use:   "local",
		Short: "Run all of GARO on this machine, with simulated EC2 and GitHub",
		Long: `local runs the API, the worker and the reaper in one process over SQLite. EC2 is
simulated: its machines run the real agent, and a runner program that pretends
its jobs. Everything is kept in --dir, and survives kill -9.

DIR/url has the address of the API while it is served, and DIR/token the
operator's token. The account 000000000000 is built in and serves the repository
acme/shop; others are read from DIR/accounts/ID.json.`,
		Example: `  garo local
  garo local --addr 127.0.0.1:0 --dir /tmp/garo --speed 60 --quiet
  garo local --no-capacity 'spot/t3a.micro/*' --no-capacity '*/*/subnet-a'`,
		Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return l.run(cmd) },
	}
	f := c.Flags()
	f.StringVar(&l.addr, "addr", "127.0.0.1:8080", "address to listen at; port 0 finds a free one")
	f.StringVar(&l.dir, "dir", defaultDir, "directory that keeps everything")
	f.BoolVar(&l.anywhere, "listen-anywhere", false, "allow an address that others can reach")
	f.DurationVar(&l.boot, "boot-time", 3*time.Second, "time from a machine's launch until its agent runs")
	f.DurationVar(&l.jobs, "jobs", 10*time.Second, "length of the one job that each runner gets; 0: none comes")
	f.BoolVar(&l.ec2Pacing, "ec2-pacing", false, "pace and throttle launches as EC2 does, not at 100 a second")
	f.StringSliceVar(&l.empty, "no-capacity", nil, "placement without capacity, as MARKET/TYPE/SUBNET with * for any; may be repeated")
	f.StringVar(&l.issuer, "oidc-issuer", "", "let workflows in by the ID tokens of this issuer, such as https://token.actions.githubusercontent.com")
	f.StringVar(&l.audience, "oidc-audience", "", "what those tokens must be for (default this API's address)")
	f.StringVar(&l.githubURL, "github-url", "", "register runners at this GitHub, such as https://api.github.com, and not at a simulated one")
	f.StringVar(&l.githubToken, "github-token-file", "", "file with the token, or the App's private key, for --github-url")
	f.IntVar(&l.speed, "speed", 1, "divide all limits, such as the idle limit of 10 minutes, by this (1 to 60)")
	f.BoolVar(&l.quiet, "quiet", false, "log nothing")
	c.AddCommand(localJobCommand())
	return c
}

// check refuses flags that do not go together or are out of bounds, and returns the
// placements without capacity.
func (l *localFlags) check() ([]simfleet.Placement, error) {
	if err := checkAddr(l.addr, l.anywhere); err != nil {
		return nil, err
	}
	placements, err := parsePlacements(l.empty)
	switch {
	case err != nil:
		return nil, err
	case l.speed < 1 || l.speed > 60:
		return nil, usage("--speed %d: want 1 to 60", l.speed)
	case l.boot < 0 || l.jobs < 0:
		return nil, usage("--boot-time and --jobs: want no negative time")
	case (l.githubURL == "") != (l.githubToken == ""):
		return nil, usage("--github-url and --github-token-file go together")
	}
	return placements, nil
}

// run serves the system until the command is interrupted.
func (l *localFlags) run(cmd *cobra.Command) error {
	placements, err := l.check()
	if err != nil {
		return err
	}
	debug.SetGCPercent(local.GCPercent)
	listener, err := (&net.ListenConfig{}).Listen(cmd.Context(), "tcp", l.addr)
	if err != nil {
		return unheard(l.addr, err)
	}
	defer listener.Close()
	var logTo io.Writer = cmd.ErrOrStderr()
	if l.quiet {
		logTo = io.Discard
	}
	url := urlOf(listener.Addr())
	s, err := local.Open(cmd.Context(), local.Config{
		Dir: l.dir, URL: url, Limits: store.DefaultLimits().Divided(l.speed), BootTime: l.boot, Jobs: l.jobs,
		GitHubLost: githubLost / time.Duration(l.speed),
		OIDCIssuer: l.issuer, OIDCAudience: l.audience, GitHubURL: l.githubURL, GitHubTokenFile: l.githubToken, EC2Pacing: l.ec2Pacing, Empty: placements,
		Log: slog.New(logHandler(logTo)),
	})
	if err != nil {
		return err
	}
	try := "garo start --repo acme/shop --wait"
	if l.dir != defaultDir {
		try += " --url " + url + " --token-file " + filepath.Join(l.dir, local.TokenFile)
	}
	fmt.Fprintf(cmd.OutOrStdout(), "garo %s listens at %s\nin a browser: %s\nin another terminal: %s\n", versionText(), url, pageAt(url, s.Token), try)
	return errors.Join(s.Serve(cmd.Context(), listener), s.Close())
}

// unheard says what to do about an address that cannot be listened at.
func unheard(addr string, err error) error {
	switch {
	case errors.Is(err, syscall.EADDRINUSE):
		return fmt.Errorf("%s is in use: stop what listens there, or give another --addr (port 0 finds a free one)", addr)
	case errors.Is(err, syscall.EACCES):
		return fmt.Errorf("listen at %s: this user may not: give an --addr with a port above 1023", addr)
	case errors.Is(err, syscall.EADDRNOTAVAIL):
		return fmt.Errorf("listen at %s: it is no address of this machine: give another --addr, such as 127.0.0.1:8080", addr)
	}
	return fmt.Errorf("listen at %s: %w: give another --addr, such as 127.0.0.1:8080", addr, err)
}

// checkAddr refuses to listen where others can reach it, unless told to: the
// system hands out only simulated machines, but its token is an operator's.
func checkAddr(addr string, anywhere bool) error {
	host, port, err := net.SplitHostPort(addr)
	if err != nil {
		return usage("--addr %q: want HOST:PORT", addr)
	}
	if _, err := strconv.ParseUint(port, 10, 16); err != nil {
		return usage("--addr %q: want a port from 0 to 65535", addr)
	}
	ip := net.ParseIP(host)
	if anywhere || host == "localhost" || ip != nil && ip.IsLoopback() {
		return nil
	}
	return usage("--addr %s can be reached from other machines: use 127.0.0.1, or add --listen-anywhere", addr)
}

// urlOf is how clients on this machine reach an address: one that stands for
// all of the machine's is localhost.
func urlOf(a net.Addr) string {
	if tcp, ok := a.(*net.TCPAddr); ok && tcp.IP.IsUnspecified() {
		return fmt.Sprintf("http://localhost:%d", tcp.Port)
	}
	return "http://" + a.String()
}

func parsePlacements(empty []string) ([]simfleet.Placement, error) {
	var out []simfleet.Placement
	for _, e := range empty {
		parts := strings.Split(e, "/")
		if len(parts) != 3 {
			return nil, usage("--no-capacity %q: want MARKET/TYPE/SUBNET, such as spot/t3a.micro/*", e)
		}
		for i := range parts {
			if parts[i] == "*" {
				parts[i] = ""
			}
		}
		out = append(out, simfleet.Placement{Market: parts[0], InstanceType: parts[1], Subnet: parts[2]})
	}
	return out, nil
}
