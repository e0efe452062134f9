package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"path/filepath"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/alphagov/github-actions-runner-orchestration/internal/fleet/simfleet"
	"github.com/alphagov/github-actions-runner-orchestration/internal/local"
	"github.com/alphagov/github-actions-runner-orchestration/store"
)

func localCommand() *cobra.Command {
	var addr, dir string
	var open, ec2Pacing, quiet bool
	var boot, jobs time.Duration
	var empty []string
	var speed int
	c := &cobra.Command{
		Use:   "local",
		Short: "Run all of GARO on this machine, with simulated EC2 and GitHub",
		Long: `local runs the API, the worker and the reaper in one process over SQLite. EC2 is
simulated: its machines run the real agent, and a runner program that pretends
its jobs. Everything is kept in --dir, and survives kill -9.

The operator's token is in DIR/token. The account 000000000000 is built in and
serves the repository acme/shop; others are read from DIR/accounts/ID.json.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := checkAddr(addr, open); err != nil {
				return err
			}
			placements, err := parsePlacements(empty)
			if err != nil {
				return err
			}
			if speed < 1 || speed > 60 {
				return fmt.Errorf("--speed %d: want 1 to 60", speed)
			}
			listener, err := (&net.ListenConfig{}).Listen(cmd.Context(), "tcp", addr)
			if err != nil {
				return err
			}
			defer listener.Close()
			var logTo io.Writer = cmd.ErrOrStderr()
			if quiet {
				logTo = io.Discard
			}
			url := "http://" + listener.Addr().String()
			s, err := local.Open(cmd.Context(), local.Config{
				Dir: dir, URL: url, Limits: store.DefaultLimits().Divided(speed), BootTime: boot, Jobs: jobs,
				EC2Pacing: ec2Pacing, Empty: placements,
				Log: slog.New(slog.NewTextHandler(logTo, nil)),
			})
			if err != nil {
				return err
			}
			fmt.Fprintf(cmd.OutOrStdout(), "garo %s listens at %s\ntry: garo start --url %s --token-file %s --repo acme/shop --wait\n",
				versionText(), url, url, filepath.Join(dir, "token"))
			return errors.Join(serve(cmd.Context(), listener, s), s.Close())
		},
	}
	f := c.Flags()
	f.StringVar(&addr, "addr", "127.0.0.1:8080", "address to listen at")
	f.StringVar(&dir, "dir", defaultDir, "directory that keeps everything")
	f.BoolVar(&open, "listen-anywhere", false, "allow an address that others can reach")
	f.DurationVar(&boot, "boot-time", 3*time.Second, "time from a machine's launch until its agent runs")
	f.DurationVar(&jobs, "jobs", 10*time.Second, "length of the job that each runner gets; 0: none comes")
	f.BoolVar(&ec2Pacing, "ec2-pacing", false, "pace and throttle launches as EC2 does, not at 100 a second")
	f.StringSliceVar(&empty, "no-capacity", nil, "placement without capacity, as MARKET/TYPE/SUBNET with * for any; may be repeated")
	f.IntVar(&speed, "speed", 1, "divide all limits, such as the idle limit of 10 minutes, by this (1 to 60)")
	f.BoolVar(&quiet, "quiet", false, "log nothing")
	return c
}

// checkAddr refuses to listen where others can reach it, unless told to: the
// system hands out only simulated machines, but its token is an operator's.
func checkAddr(addr string, open bool) error {
	host, _, err := net.SplitHostPort(addr)
	if err != nil {
		return fmt.Errorf("--addr %q: want HOST:PORT", addr)
	}
	ip := net.ParseIP(host)
	if open || host == "localhost" || ip != nil && ip.IsLoopback() {
		return nil
	}
	return fmt.Errorf("--addr %s can be reached from other machines: use 127.0.0.1, or add --listen-anywhere", addr)
}

func parsePlacements(empty []string) ([]simfleet.Placement, error) {
	var out []simfleet.Placement
	for _, e := range empty {
		parts := strings.Split(e, "/")
		if len(parts) != 3 {
			return nil, fmt.Errorf("--no-capacity %q: want MARKET/TYPE/SUBNET, such as spot/t3a.micro/*", e)
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

// serve answers calls and works until ctx ends.
func serve(ctx context.Context, listener net.Listener, s *local.System) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	server := &http.Server{
		Handler:           s.Handler(),
		ReadHeaderTimeout: 10 * time.Second, // as the API's own limit: a client that sends slower is none of ours
		ReadTimeout:       10 * time.Second,
		WriteTimeout:      time.Minute, // a run of the reaper is answered too
		IdleTimeout:       2 * time.Minute,
	}
	failed := make(chan error, 1)
	go func() {
		err := server.Serve(listener)
		cancel()
		failed <- err
	}()
	s.Run(ctx)
	stop, cancelStop := context.WithTimeout(context.WithoutCancel(ctx), 5*time.Second)
	defer cancelStop()
	err := server.Shutdown(stop)
	if serveErr := <-failed; !errors.Is(serveErr, http.ErrServerClosed) {
		err = errors.Join(err, serveErr)
	}
	return err
}
