package store_test

import (
	"encoding/json"
	"maps"
	"strings"
	"testing"

	"github.com/alphagov/github-actions-runner-orchestration/store"
)

func TestOutfitOfARegistration(t *testing.T) {
	const canary = "canary-script"
	hash := strings.Repeat("0a", 32)
	setup := func(fields ...any) map[string]any {
		m := map[string]any{}
		for i := 0; i < len(fields); i += 2 {
			m[fields[i].(string)] = fields[i+1]
		}
		return map[string]any{"setup": m}
	}
	user := func(field string, value any) map[string]any {
		return map[string]any{"job_user": map[string]any{field: value}}
	}
	packages := func(names ...string) map[string]any { return map[string]any{"packages": names} }
	for name, c := range map[string]struct {
		outfit map[string]any
		says   string // "" if it is allowed
	}{
		"None":                 {nil, ""},
		"Script":               {setup("script", "#!/bin/sh\necho \"$x\" é\n"), ""},
		"ScriptWithALimit":     {setup("script", "#!/bin/sh\n", "limit", 240), ""},
		"LongestScript":        {setup("script", "#!/bin/sh\n"+strings.Repeat("x", store.MaxScript-10)), ""},
		"TooLongScript":        {setup("script", "#!/bin/sh\n"+strings.Repeat("x", store.MaxScript-9)), "setup.script: 8193 bytes"},
		"ScriptOfNoKind":       {setup("script", "echo "+canary), "setup.script: want a text that begins with #!"},
		"ScriptWithNUL":        {setup("script", "#!/bin/sh\n\x00"+canary), "setup.script"},
		"ScriptWithBraces":     {setup("script", "#!/bin/sh\necho {{"+canary), "setup.script: SSM takes no {{"},
		"Path":                 {setup("path", "/garo/setup/build", "sha256", hash), ""},
		"PathAndScript":        {setup("path", "/garo/setup/build", "sha256", hash, "script", "#!/bin/sh\n"+canary), "setup: script and path"},
		"PathWithoutHash":      {setup("path", "/garo/setup/build"), "setup.sha256"},
		"HashWithoutPath":      {setup("script", "#!/bin/sh\n"+canary, "sha256", hash), "setup.sha256"},
		"HashInCapitals":       {setup("path", "/garo/setup/build", "sha256", strings.Repeat("0A", 32)), "setup.sha256: want 64"},
		"PathThatIsNone":       {setup("path", "garo/setup", "sha256", hash), "setup.path"},
		"PathWithASlashBehind": {setup("path", "/garo/setup/", "sha256", hash), "setup.path"},
		"NegativeLimit":        {setup("script", "#!/bin/sh\n", "limit", -1), "setup.limit"},
		"TooLongLimit":         {setup("script", "#!/bin/sh\n", "limit", 241), "setup.limit: want at most 240"},
		"UnknownField":         {setup("scripts", "#!/bin/sh\n"), "scripts"},
		"Sudo":                 {user("sudo", true), ""},
		"Groups":               {user("groups", []string{"docker", "kvm", "_x-1"}), ""},
		"GroupRoot":            {user("groups", []string{"root"}), "job_user.groups"},
		"GroupThatIsAnOption":  {user("groups", []string{"-R"}), "job_user.groups"},
		"GroupsInOneWord":      {user("groups", []string{"docker,kvm"}), "job_user.groups"},
		"TooManyGroups":        {user("groups", strings.Split("a,b,c,d,e,f,g,h,i", ",")), "9 groups"},
		"Packages":             {packages(store.Packages...), ""},
		"UnknownPackage":       {packages("git", "emacs"), `packages: "emacs": want some of build-tools, docker, git`},
		"Hooks":                {map[string]any{"hooks": map[string]any{"started": "/opt/hooks/started.sh", "completed": "/opt/x.js"}}, ""},
		"HookThatIsNoPath":     {map[string]any{"hooks": map[string]any{"started": "started.sh"}}, "hooks.started"},
		"HookOfNoKind":         {map[string]any{"hooks": map[string]any{"completed": "/bin/true"}}, "hooks.completed: \"/bin/true\": want the path of a script that ends in .sh, .ps1, .js"},
		"HookWithACommand":     {map[string]any{"hooks": map[string]any{"started": "/x;reboot.sh"}}, "hooks.started"},
		"InstanceStore":        {map[string]any{"instance_store": "mount"}, ""},
		"OtherInstanceStore":   {map[string]any{"instance_store": "raid1"}, "instance_store"},
		"RoleWithoutAProfile":  {map[string]any{"jobs_role": true}, "jobs_role: no region has an instance_profile"},
		"PackageTwice":         {packages("git", "git"), `packages: "git" is there twice`},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := store.ParseAccount("123456789012", registration(t, func(m map[string]any) {
				maps.Copy(m, c.outfit)
			}))
			switch {
			case c.says == "" && err != nil:
				t.Errorf("ParseAccount = %v, want no error", err)
			case c.says != "" && (err == nil || !strings.Contains(err.Error(), c.says)):
				t.Errorf("ParseAccount = %v, want %q in it", err, c.says)
			case err != nil && strings.Contains(err.Error(), canary):
				t.Errorf("the error has the script: %v", err)
			}
		})
	}
}

// A registration that has nothing of it is written as before, and read by versions
// before that refuse what they do not know.
func TestOutfitThatIsNotUsedIsNotWritten(t *testing.T) {
	b, err := json.Marshal(account())
	if err != nil {
		t.Fatal(err)
	}
	for _, field := range []string{"Outfit", "setup", "job_user", "packages", "hooks", "instance_store", "jobs_role"} {
		if strings.Contains(string(b), `"`+field+`"`) {
			t.Errorf("a registration without it has %s: %s", field, b)
		}
	}
}

// A machine's role is for jobs or it is not: who can become root has it anyway.
func TestRoleOfAMachineIsForJobsOrNot(t *testing.T) {
	for name, c := range map[string]struct {
		sudo   bool
		groups []string
		role   bool
		says   string
	}{
		"ClosedToJobs":       {},
		"ForJobs":            {role: true},
		"ForJobsThatAreRoot": {sudo: true, groups: []string{"docker"}, role: true},
		"ForOtherGroups":     {groups: []string{"kvm"}},
		"OpenBySudo":         {sudo: true, says: "job_user: root can use the instance_profile of eu-west-2"},
		"OpenByDocker":       {groups: []string{"docker"}, says: "set jobs_role, or take the profile out"},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := store.ParseAccount("123456789012", registration(t, func(m map[string]any) {
				m["regions"].(map[string]any)["eu-west-2"].(map[string]any)["instance_profile"] = "ci"
				m["job_user"] = map[string]any{"sudo": c.sudo, "groups": c.groups}
				m["jobs_role"] = c.role
			}))
			if (err != nil) != (c.says != "") || err != nil && !strings.Contains(err.Error(), c.says) {
				t.Errorf("ParseAccount = %v, want %q", err, c.says)
			}
		})
	}
}
