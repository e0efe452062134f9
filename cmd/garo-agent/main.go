//go:build linux

// Command garo-agent is the agent, for a machine on EC2. The start script in the
// machine's user data installs and starts it; nothing of it is meant to be started
// by hand. It always ends the machine, and needs to be root for that.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"net"
	"net/http"
	"os"
	"os/signal"
	"slices"
	"syscall"
	"time"

	"github.com/alphagov/github-actions-runner-orchestration/internal/agent"
	"github.com/alphagov/github-actions-runner-orchestration/internal/agent/bootstrap"
	"github.com/alphagov/github-actions-runner-orchestration/internal/agent/host"
)

// metadataTimeout is how long the machine may take to get at its own metadata:
// well within the time that it has to boot.
const metadataTimeout = 2 * time.Minute

// config is what the command line says.
type config struct {
	document string // no default: without it nothing happens, not even a power-off
	host     host.Config
}

func parse(args []string, stderr io.Writer) (config, error) {
	var c config
	f := flag.NewFlagSet("garo-agent", flag.ContinueOnError)
	f.SetOutput(stderr)
	f.StringVar(&c.document, "document", "", "`file` with the machine's document; needed")
	f.StringVar(&c.host.Dir, "dir", "/run/garo", "`directory` of the agent, on a file system that a reboot empties")
	f.StringVar(&c.host.Hooks, "hooks", "/run/garo-hooks", "`directory` of what the runner's user may reach, on such a file system too")
	f.StringVar(&c.host.Runner, "runner", "/opt/actions-runner", "`directory` of the runner program")
	f.StringVar(&c.host.Ephemeral, "ephemeral", "/mnt/ephemeral", "`directory` at which the machine's own disks are mounted, if its account wants that")
	f.StringVar(&c.host.User, "user", "runner", "`user` that runs the runner program")
	f.StringVar(&c.host.Metadata, "metadata", "http://169.254.169.254", "`URL` of the instance metadata service")
	if err := f.Parse(args); err != nil {
		return c, err
	}
	if c.document == "" || f.NArg() > 0 {
		f.Usage()
		return c, errors.New("want -document and no arguments")
	}
	return c, nil
}

func main() {
	if len(os.Args) == 2 && os.Args[1] == host.KeeperArgument {
		os.Exit(host.Keep())
	}
	c, err := parse(os.Args[1:], os.Stderr)
	if errors.Is(err, flag.ErrHelp) {
		return
	} else if err != nil {
		fmt.Fprintln(os.Stderr, "garo-agent:", err)
		os.Exit(2)
	}
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)
	defer stop()
	if err := run(ctx, c, slog.New(slog.NewTextHandler(os.Stderr, nil))); err != nil {
		fmt.Fprintln(os.Stderr, "garo-agent:", err)
		os.Exit(1) // and what started it starts it again
	}
}

// run returns nil once the machine is powered off.
func run(ctx context.Context, c config, log *slog.Logger) error {
	c.host.Log = log
	if document, err := read(c.document); err == nil { // else start says what is wrong
		c.host.API = document.API
	}
	m, err := host.Open(c.host)
	if err != nil {
		return err
	}
	defer m.Close()
	setProxies(m, log)
	document, id, err := start(ctx, c, m)
	if ctx.Err() != nil {
		return ctx.Err()
	} else if err != nil {
		log.Error("powering off: the machine cannot start", slog.Any("error", err))
		m.PowerOff(err.Error())
		return nil
	}
	return agent.New(agent.Config{
		Document:   document,
		InstanceID: id,
		Identity:   m.Identity,
		Machine:    m,
		HTTP:       &http.Client{Transport: transport()},
		Install:    m.Install,
		Log:        log,
	}).Run(ctx)
}

// setProxies makes the image's proxies those of this process, before its first call:
// systemd starts a service without what /etc/environment and /etc/profile say. What
// the service itself was given counts more.
func setProxies(m *host.Machine, log *slog.Logger) {
	proxies, err := m.Proxies()
	if err != nil {
		log.Warn("calls are made without a proxy", slog.Any("error", err))
		return
	}
	for _, name := range slices.Sorted(maps.Keys(proxies)) {
		if os.Getenv(name) != "" {
			continue
		}
		if err := os.Setenv(name, proxies[name]); err != nil {
			log.Warn("proxy not set", slog.String("variable", name), slog.Any("error", err))
			continue
		}
		log.Info("proxy of the image", slog.String("variable", name))
	}
}

func read(name string) (bootstrap.Document, error) {
	word, err := os.ReadFile(name)
	if err != nil {
		return bootstrap.Document{}, err
	}
	return bootstrap.Decode(string(word))
}

// start reads what the user data says about the machine.
func start(ctx context.Context, c config, m *host.Machine) (bootstrap.Document, string, error) {
	document, err := read(c.document)
	if err != nil {
		return bootstrap.Document{}, "", err
	}
	ctx, cancel := context.WithTimeout(ctx, metadataTimeout)
	defer cancel()
	id, err := m.InstanceID(ctx)
	return document, id, err
}

// transport is for one server and one call at a time. A call as a whole has ten
// seconds, in which a second address must still be tried.
func transport() *http.Transport {
	return &http.Transport{
		Proxy:               http.ProxyFromEnvironment,
		DialContext:         (&net.Dialer{Timeout: 4 * time.Second}).DialContext,
		TLSHandshakeTimeout: 4 * time.Second,
		MaxIdleConns:        1,
		IdleConnTimeout:     time.Minute, // three heartbeats
		ForceAttemptHTTP2:   true,
	}
}
