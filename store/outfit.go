package store

import (
	"fmt"
	"maps"
	"path"
	"slices"
	"strings"
	"unicode/utf8"

	"github.com/alphagov/github-actions-runner-orchestration/internal/form"
)

// Outfit is what every machine of an account is to be beyond its image. All of it is
// the operator's word: nothing of a request is in it. The zero value is nothing.
type Outfit struct {
	Setup    Setup    `json:"setup,omitzero"`
	JobUser  JobUser  `json:"job_user,omitzero"`
	Packages []string `json:"packages,omitempty"`
	Hooks    Hooks    `json:"hooks,omitzero"`
	// InstanceStore says what becomes of the disks that an instance type has of its own:
	// Mount, or nothing.
	InstanceStore string `json:"instance_store,omitempty"`
	// JobsRole lets jobs use the role of the region's instance profile: the metadata
	// service stays open to them. Without it, it is closed.
	JobsRole bool `json:"jobs_role,omitempty"`
}

// Mount makes one volume of all of a machine's own disks, with the jobs' work directory
// and docker's data on it.
const Mount = "mount"

// Hooks are scripts on the machine, from its image or made by Setup, that the runner
// program runs as the jobs' user before and after each job, behind the image's own. Each
// is a path that ends as GitHub wants it; empty: none
// (https://docs.github.com/en/actions/how-tos/manage-runners/self-hosted-runners/run-scripts).
type Hooks struct {
	Started   string `json:"started,omitempty"`
	Completed string `json:"completed,omitempty"`
}

// Setup is the script that root runs once on each machine, before its runner program.
// The zero value is none.
type Setup struct {
	// Script is the script itself, from #! on, at most MaxScript bytes.
	Script string `json:"script,omitempty"`
	// Path is where it is in SSM instead, in the control plane's account and region:
	// the values of the parameters right below, joined in the order of their names, in
	// base64.
	Path string `json:"path,omitempty"`
	// SHA256 is that of the script at Path, in hex: a machine runs nothing else.
	SHA256 string `json:"sha256,omitempty"`
	// LimitS is how long it may take, in seconds. Zero: DefaultSetupS.
	LimitS int `json:"limit,omitempty"`
}

// JobUser says what the user may do that runs jobs. The zero value is nothing more than
// in the image.
type JobUser struct {
	// Sudo lets it become root without a password. The job then owns the machine.
	Sudo bool `json:"sudo,omitempty"`
	// Groups are further groups of the user, such as docker, which is as much as Sudo.
	Groups []string `json:"groups,omitempty"`
}

// Packages are what a registration may want to be on every machine. The agent knows
// what each is called in a distribution, and installs what an image lacks.
var Packages = []string{"build-tools", "docker", "git", "git-lfs", "jq", "make", "mdadm", "python3", "rsync", "sudo", "unzip", "zip", "zstd"}

const (
	// MaxScript is the most that a registration may have of a script, in bytes. It has to
	// fit into the registration's parameter, whose 8 KB are for all of it.
	MaxScript = 8 << 10
	// MaxLongScript is the most that the parameters of a script may have, in bytes: a boot
	// answer has it in base64, and an agent reads 256 KB of that.
	MaxLongScript = 64 << 10
	// DefaultSetupS is what a script is given, and maxSetupS the most, in seconds. A
	// machine has five minutes from its boot call until its runner program must start;
	// a minute of them is for the download of that.
	DefaultSetupS = 120
	maxSetupS     = 240
	// maxGroups is far above what anyone needs, and bounds the boot answer.
	maxGroups = 8
)

// Limit returns how long the script may take, in seconds.
func (s Setup) Limit() int {
	if s.LimitS == 0 {
		return DefaultSetupS
	}
	return s.LimitS
}

var (
	// groupForm is what useradd takes (shadow, lib/chkname.c), in plain letters.
	groupForm = form.Form{{Of: form.Lower + "__", Min: 1, Max: 1}, {Of: form.Lower + form.Digit + "__--", Max: 31}}
	// pathForm is a parameter's name of SSM
	// (https://docs.aws.amazon.com/systems-manager/latest/APIReference/API_PutParameter.html).
	pathForm = form.Form{{Text: "/", Of: form.Letter + form.Digit + "..__--//", Min: 1, Max: 900}}
	// hookForm is a plain path.
	hookForm = form.Form{{Text: "/", Of: form.Letter + form.Digit + "..__--//", Min: 1, Max: 255}}
)

// hookEnds are what GitHub's runner program runs.
var hookEnds = []string{".sh", ".ps1", ".js"}

// checkOutfit returns every fault of what a registration wants of its machines. Nothing
// of a script is in an error.
func checkOutfit(a Account) []error {
	var errs []error
	want := func(ok bool, format string, args ...any) {
		if !ok {
			errs = append(errs, fmt.Errorf(format, args...))
		}
	}
	s := a.Setup
	want(s.Script == "" || s.Path == "", "setup: script and path: want one of them")
	want(s.Script == "" || strings.HasPrefix(s.Script, "#!") && utf8.ValidString(s.Script) && !strings.Contains(s.Script, "\x00"), "setup.script: want a text that begins with #! and the script's interpreter")
	want(!strings.Contains(s.Script, "{{"), "setup.script: SSM takes no {{ in a parameter: put the script there by its path, in base64")
	want(len(s.Script) <= MaxScript, "setup.script: %d bytes: want at most %d; put a longer one into SSM, and name its path", len(s.Script), MaxScript)
	want(s.Path == "" || pathForm.Fits(s.Path) && !strings.HasSuffix(s.Path, "/"), "setup.path %q: want the path of SSM parameters, without a slash at its end", s.Path)
	want((s.Path == "") == (s.SHA256 == ""), "setup.sha256: want it with path, and only then")
	want(s.SHA256 == "" || form.SHA256.Fits(s.SHA256), "setup.sha256: want 64 digits of lower-case hex")
	want(s.LimitS >= 0 && s.LimitS <= maxSetupS, "setup.limit: want at most %d seconds, or nothing for %d", maxSetupS, DefaultSetupS)
	want(len(a.JobUser.Groups) <= maxGroups, "job_user.groups: %d groups: want at most %d", len(a.JobUser.Groups), maxGroups)
	for _, g := range a.JobUser.Groups {
		want(groupForm.Fits(g) && g != "root", "job_user.groups: %.40q: want the name of a group other than root", g)
	}
	for i, p := range a.Packages {
		want(slices.Contains(Packages, p), "packages: %.40q: want some of %s; install anything else in the image, or by setup", p, strings.Join(Packages, ", "))
		want(!slices.Contains(a.Packages[:i], p), "packages: %.40q is there twice", p)
	}
	for _, h := range []struct{ field, path string }{{"started", a.Hooks.Started}, {"completed", a.Hooks.Completed}} {
		want(h.path == "" || hookForm.Fits(h.path) && slices.Contains(hookEnds, path.Ext(h.path)), "hooks.%s: %.80q: want the path of a script that ends in %s", h.field, h.path, strings.Join(hookEnds, ", "))
	}
	want(a.InstanceStore == "" || a.InstanceStore == Mount, "instance_store: %.40q: want %s, or nothing", a.InstanceStore, Mount)
	profile := ""
	for _, name := range slices.Sorted(maps.Keys(a.Regions)) {
		if a.Regions[name].InstanceProfile != "" {
			profile = name
		}
	}
	root := a.JobUser.Sudo || slices.Contains(a.JobUser.Groups, "docker")
	want(!a.JobsRole || profile != "", "jobs_role: no region has an instance_profile: name one, or leave this out")
	want(a.JobsRole || profile == "" || !root, "job_user: root can use the instance_profile of %s, whatever is closed to it: set jobs_role, or take the profile out", profile)
	return errs
}
