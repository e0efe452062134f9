//go:build linux

package host

import (
	"bytes"
	"context"
	"errors"
	"io"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/alphagov/github-actions-runner-orchestration/client/apitype"
	"github.com/alphagov/github-actions-runner-orchestration/internal/agent"
)

// followPeriod is how often a program is looked at: a job's start and end are
// reported that much later.
const followPeriod = 250 * time.Millisecond

// Running implements agent.Machine.
func (m *Machine) Running() agent.Program {
	if _, err := os.Stat(filepath.Join(m.path(programDir), lockFile)); err != nil {
		return nil
	}
	m.unfollow()
	return m.follow(0)
}

// follow begins to follow the program whose files are there. keeper is the process
// id of its keeper if that is a child of this process, and 0 otherwise.
func (m *Machine) follow(keeper int) *program {
	ctx, cancel := context.WithCancel(m.ctx)
	p := &program{events: make(chan agent.ProgramEvent), stop: cancel, done: make(chan struct{}), keeper: keeper, answer: filepath.Join(m.cfg.Hooks, answerFile)}
	m.program = p
	m.wg.Go(func() {
		defer close(p.done)
		defer cancel()
		if m.watchProgram(ctx, p) {
			close(p.events)
		}
	})
	return p
}

// unfollow returns the program that was followed, when nothing follows it any
// more. It is nil if there was none.
func (m *Machine) unfollow() *program {
	p := m.program
	if p != nil {
		p.stop()
		<-p.done
		m.program = nil
	}
	return p
}

// What the runner program prints
// (https://github.com/actions/runner, src/Runner.Listener/Runner.cs and JobDispatcher.cs).
var (
	listening = regexp.MustCompile(`^[0-9: -]+Z: Listening for Jobs\s*$`)
	running   = regexp.MustCompile(`^[0-9: -]+Z: Running job: `)
	ended     = regexp.MustCompile(`^[0-9: -]+Z: Job .* completed with result: `)
	runID     = regexp.MustCompile(`^[0-9]{1,20}$`)
	// Before 2.333.0 a refused version shows by this line alone: run.sh ends with 0, or
	// starts the listener again for ever
	// (https://github.com/actions/runner/issues/3651, issues/2246 and issues/4613).
	refused    = regexp.MustCompile(`^An error occurr?ed: .*\bRunner version \S+ is deprecated and cannot receive messages`)
	restarting = regexp.MustCompile(`^Restarting runner\.\.\.\s*$`)
)

// heard is what a program printed of itself, and what was reported of that.
type heard struct {
	listens bool // it says that it listens for jobs
	begun   bool // it says that a job runs
	ended   bool // it says that the job is done
	tooOld  bool // it says that GitHub refuses its version
	again   bool // it starts again all the same, to be refused again

	told, started, known bool // that it listens, that a job runs, and of which run
	asked                bool // that the job waits to be told whether it may run
}

// line takes a line that the program printed.
func (h *heard) line(text string) {
	switch {
	case listening.MatchString(text):
		h.listens = true
	case running.MatchString(text):
		h.begun = true
	case ended.MatchString(text):
		h.ended = true
	case refused.MatchString(text):
		h.tooOld = true
	case h.tooOld && restarting.MatchString(text):
		h.again = true
	}
}

// news returns what is to be told now, and does so once. run is that of the job;
// empty: it is not known.
func (h *heard) news(run string) (events []agent.ProgramEvent) {
	if h.listens && !h.told {
		h.told = true
		events = append(events, agent.ProgramEvent{Kind: agent.Connected})
	}
	if h.begun && !h.started || run != "" && !h.known {
		h.started, h.known = true, run != ""
		events = append(events, agent.ProgramEvent{Kind: agent.JobStarted, RunID: run})
	}
	return events
}

// tell delivers an event, and reports whether it did before ctx ended.
func (p *program) tell(ctx context.Context, e agent.ProgramEvent) bool {
	select {
	case p.events <- e:
		return true
	case <-ctx.Done():
		return false
	}
}

// watchProgram tells what a program does until it has exited, and reports whether
// it has. A job is over when its program has exited: until then it still uploads.
func (m *Machine) watchProgram(ctx context.Context, p *program) bool {
	log := tail{name: filepath.Join(m.path(programDir), logFile)}
	defer log.close()
	var h heard
	tick := time.NewTicker(followPeriod)
	defer tick.Stop()
	for {
		over := m.over(p) // looked at first, so that what was printed before is read
		for _, line := range log.lines() {
			h.line(line)
		}
		for _, e := range h.news(m.startedRun()) {
			if !p.tell(ctx, e) {
				return false
			}
		}
		if job, ok := askedJob(m.cfg.Hooks); ok && !h.asked {
			h.asked = true
			if !p.tell(ctx, agent.ProgramEvent{Kind: agent.Asks, Job: job}) {
				return false
			}
		}
		if over || h.again {
			if p.code, p.output = m.exitCode(), m.output(); h.tooOld {
				p.code = agent.ExitTooOld
			}
			return !h.started || p.tell(ctx, agent.ProgramEvent{Kind: agent.JobDone, Cut: !h.ended && !m.completed()})
		}
		select {
		case <-ctx.Done():
			return false
		case <-tick.C:
		}
	}
}

// startedRun returns the run id that the hook wrote, or "".
func (m *Machine) startedRun() string {
	line, _ := firstLine(filepath.Join(m.cfg.Hooks, startedFile), 32)
	if !runID.MatchString(line) {
		return ""
	}
	return line
}

// firstLine returns the first line of a file that a hook wrote, if it is there whole and
// not longer than most: it was written before any step of the job.
func firstLine(name string, most int) (line string, whole bool) {
	f, err := os.Open(name)
	if err != nil {
		return "", false
	}
	defer f.Close()
	b := make([]byte, most)
	n, _ := io.ReadFull(f, b) // a short file is a short line
	if line, _, whole = strings.Cut(string(b[:n]), "\n"); !whole {
		return "", false
	}
	return line, true
}

// askedLine is what the hook asks: GitHub's numbers of the repository, its owner and the
// run, the attempt, and the repository's name.
var askedLine = regexp.MustCompile(`^([0-9]{1,20}) ([0-9]{1,20}) ([0-9]{1,20}) ([0-9]{1,6}) ([A-Za-z0-9._-]{1,100}/[A-Za-z0-9._-]{1,100})$`)

// askedJob returns the job that waits to be told whether it may run, by the files of the
// hooks. It is zero if the runner program does not tell which job that is, as an old one may.
func askedJob(hooks string) (job apitype.Admission, ok bool) {
	line, ok := firstLine(filepath.Join(hooks, askedFile), 512)
	if _, err := os.Stat(filepath.Join(hooks, answerFile)); !ok || err == nil {
		return job, false // or it was reported before this agent began
	}
	if f := askedLine.FindStringSubmatch(line); f != nil {
		job = apitype.Admission{RepositoryID: f[1], OwnerID: f[2], RunID: f[3], Repository: f[5]}
		job.Attempt, _ = strconv.Atoi(f[4]) // six digits are a number
	}
	return job, true
}

// completed reports whether the second hook has run.
func (m *Machine) completed() bool {
	info, err := os.Stat(filepath.Join(m.cfg.Hooks, completedFile))
	return err == nil && info.Size() > 0
}

// maxOutput is how much of what a program printed is passed on: more than is shown
// in the end, so that secrets are whole when they are masked.
const maxOutput = 64 << 10

// output returns the last whole lines that the program printed.
func (m *Machine) output() string {
	f, err := os.Open(filepath.Join(m.path(programDir), logFile))
	if err != nil {
		return ""
	}
	defer f.Close()
	cut := false
	if info, err := f.Stat(); err == nil && info.Size() > maxOutput {
		_, err = f.Seek(-maxOutput, io.SeekEnd)
		cut = err == nil
	}
	b, err := io.ReadAll(io.LimitReader(f, maxOutput))
	if err != nil {
		return ""
	}
	if cut {
		_, b, _ = bytes.Cut(b, []byte("\n"))
	}
	return string(b)
}

// over reports whether p's keeper has ended, and reaps it if it is a child. Only
// one goroutine may do so at a time. p may be nil.
func (m *Machine) over(p *program) bool {
	lock, err := os.Open(filepath.Join(m.path(programDir), lockFile))
	if err != nil {
		return true
	}
	defer lock.Close()
	if syscall.Flock(int(lock.Fd()), syscall.LOCK_SH|syscall.LOCK_NB) != nil {
		return false
	}
	for p != nil && p.keeper != 0 {
		if _, err := syscall.Wait4(p.keeper, nil, 0, nil); !errors.Is(err, syscall.EINTR) {
			p.keeper = 0
		}
	}
	return true
}

// exitCode returns what the keeper left.
func (m *Machine) exitCode() int {
	b, err := os.ReadFile(filepath.Join(m.path(programDir), exitFile))
	if err != nil {
		return -1
	}
	code, err := strconv.Atoi(string(b))
	if err != nil {
		return -1
	}
	return code
}
