//go:build linux

package host

import (
	"fmt"
	"maps"
	"net/url"
	"path/filepath"
	"slices"
	"strings"
)

// usualPath is the PATH of a machine whose image says nothing.
const usualPath = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

// Variables that the runner program reads
// (https://github.com/actions/runner, 2.336.0, src/Runner.Worker/JobExtension.cs,
// src/Runner.Common/Constants.cs, src/Runner.Listener/CommandSettings.cs).
const (
	startedVariable   = "ACTIONS_RUNNER_HOOK_JOB_STARTED"
	completedVariable = "ACTIONS_RUNNER_HOOK_JOB_COMPLETED"
	tooOldVariable    = "ACTIONS_RUNNER_RETURN_VERSION_DEPRECATED_EXIT_CODE"
	inputPrefix       = "ACTIONS_RUNNER_INPUT_" // whatever the case of its letters
	configVariable    = inputPrefix + "JITCONFIG"
)

// proxyVariables are read by the runner program, by Go and by curl, in small
// letters, in capitals, or both.
var proxyVariables = []string{
	"http_proxy", "https_proxy", "all_proxy", "no_proxy",
	"HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY",
}

// list returns variables as a process takes them, in order.
func list(env map[string]string) []string {
	var out []string
	for _, name := range slices.Sorted(maps.Keys(env)) {
		out = append(out, name+"="+env[name])
	}
	return out
}

// environment returns the environment of the runner program, from what counts least
// on: what every image may change, the image's, the user's, the registration's, ours.
func (i image) environment(who account, ours, registered map[string]string) map[string]string {
	env := map[string]string{"LANG": "C.UTF-8"}
	if !hasICU() { // .NET refuses to start without it, unless this says to do without
		env["DOTNET_SYSTEM_GLOBALIZATION_INVARIANT"] = "1"
	}
	for name, value := range i.Variables {
		if !taken(name, ours, registered) {
			env[name] = value
		}
	}
	maps.Copy(env, who.variables())
	maps.Copy(env, registered)
	maps.Copy(env, ours)
	return env
}

// taken reports whether a variable of the image must not be set, since it would
// change what we or the registration say.
func taken(name string, ours, registered map[string]string) bool {
	if _, ok := ours[name]; ok || strings.HasPrefix(strings.ToUpper(name), inputPrefix) {
		return true
	}
	if slices.Contains(proxyVariables, name) { // programs read both, and differ in which wins
		_, small := registered[strings.ToLower(name)]
		_, capital := registered[strings.ToUpper(name)]
		return small || capital
	}
	_, ok := registered[name]
	return ok
}

// noProxy returns what no_proxy has to be, where there is a proxy: with the instance
// metadata service in it, since a proxy would answer with its own, or with nothing, and
// further hosts. It is empty where there is none.
func noProxy(env map[string]string, also ...string) string {
	proxied := slices.ContainsFunc(proxyVariables, func(name string) bool {
		return !strings.EqualFold(name, "no_proxy") && env[name] != ""
	})
	if !proxied {
		return ""
	}
	hosts := env["no_proxy"]
	if hosts == "" { // the runner program reads them in this order
		hosts = env["NO_PROXY"]
	}
	for _, host := range append([]string{metadata4, metadata6}, also...) {
		if !slices.ContainsFunc(strings.Split(hosts, ","), func(h string) bool { return strings.TrimSpace(h) == host }) {
			hosts = strings.TrimPrefix(hosts+","+host, ",")
		}
	}
	return hosts
}

// direct returns the API's host, if the agent reaches it without a proxy: then jobs do
// too, whatever proxy the registration has for them.
func direct(i image, api string) []string {
	u, err := url.Parse(api)
	if err != nil || u.Hostname() == "" || noProxy(i.proxies(nil)) != "" {
		return nil
	}
	return []string{u.Hostname()}
}

// proxies are the proxy variables that the runner program has in the end.
func (i image) proxies(registered map[string]string) map[string]string {
	env := map[string]string{}
	maps.Copy(env, i.Variables)
	for _, l := range i.lines() {
		env[l.name] = l.value
	}
	maps.DeleteFunc(env, func(name, _ string) bool {
		return !slices.Contains(proxyVariables, name) || taken(name, nil, registered)
	})
	for _, name := range proxyVariables {
		if v := registered[name]; v != "" {
			env[name] = v
		}
	}
	return env
}

// Proxies returns the variables by which the image names its proxies, for the
// agent's own calls. It is empty where there are none, and makes the runner's user
// if there is no such user.
func (m *Machine) Proxies() (map[string]string, error) {
	who, err := m.account()
	if err != nil {
		return nil, fmt.Errorf("proxies of the image: %w", err)
	}
	i := m.image(who)
	found := map[string]string{}
	for _, v := range i.lines() {
		if slices.Contains(proxyVariables, v.name) {
			found[v.name] = v.value
		}
	}
	for _, name := range proxyVariables {
		if v := i.Variables[name]; v != "" {
			found[name] = v
		}
	}
	if hosts := noProxy(found); hosts != "" {
		found["no_proxy"], found["NO_PROXY"] = hosts, hosts
	}
	maps.DeleteFunc(found, func(_, value string) bool { return value == "" })
	return found, nil
}

// hasICU reports whether the library is installed that .NET needs for languages.
func hasICU() bool {
	for _, dir := range []string{"/usr/lib64", "/usr/lib", "/usr/lib/*-linux-gnu"} {
		if found, _ := filepath.Glob(dir + "/libicuuc.so*"); len(found) > 0 {
			return true
		}
	}
	return false
}
