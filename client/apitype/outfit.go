package apitype

// OptionsHeader names the parts of an Outfit that an agent knows, in a boot call: the
// JSON names of its fields, separated by commas. A machine whose agent lacks one that
// its account wants is not booted. Agents of earlier versions do not send it.
const OptionsHeader = "Garo-Options"

// OutfitParts are the parts of an Outfit, by their JSON names.
var OutfitParts = []string{"setup", "job_user", "packages", "hooks", "instance_store", "jobs_role"}

// Outfit is what an account's registration wants its machines to be beyond their image.
// The zero value is nothing.
type Outfit struct {
	Setup    *Setup   `json:"setup,omitempty"`
	JobUser  *JobUser `json:"job_user,omitempty"`
	Packages []string `json:"packages,omitempty"` // names of package store's Packages
	Hooks    *Hooks   `json:"hooks,omitempty"`

	InstanceStore string `json:"instance_store,omitempty"` // mount: one volume of the machine's own disks
	JobsRole      bool   `json:"jobs_role,omitempty"`      // jobs may use the machine's role
}

// Hooks are the paths of scripts on the machine that run before and after each job, as
// the jobs' user and behind the image's own. Empty: none.
type Hooks struct {
	Started   string `json:"started,omitempty"`
	Completed string `json:"completed,omitempty"`
}

// Setup is a script that root runs once, before the runner program.
type Setup struct {
	Script []byte  `json:"script,omitempty"` // base64 on the wire; empty: it is not where it should be
	SHA256 string  `json:"sha256"`           // of the script, in hex: nothing else may be run
	LimitS Seconds `json:"limit_s"`          // how long it may take
}

// JobUser says what the user may do that runs the runner program.
type JobUser struct {
	Sudo   bool     `json:"sudo,omitempty"`   // become root without a password
	Groups []string `json:"groups,omitempty"` // further groups
}

// Parts returns which parts of the Outfit are set, by their names in OutfitParts.
func (o Outfit) Parts() []string {
	var parts []string
	for _, p := range []struct {
		name string
		set  bool
	}{{"setup", o.Setup != nil}, {"job_user", o.JobUser != nil}, {"packages", len(o.Packages) > 0}, {"hooks", o.Hooks != nil}, {"instance_store", o.InstanceStore != ""}, {"jobs_role", o.JobsRole}} {
		if p.set {
			parts = append(parts, p.name)
		}
	}
	return parts
}
