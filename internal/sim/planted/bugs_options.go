package main

// optionBugs break what a machine is made of.
var optionBugs = []Bug{
	plant("SpecWithoutTheRootVolume", "requests of different disks share a runner",
		edit("store/key.go", `	b, err := json.Marshal(m)`, `	m.RootVolumeGB = 0
	b, err := json.Marshal(m)`)),
	plant("RootVolumeOfTheAccountAlone", "what a request says of its disk is forgotten",
		edit("store/options.go", `if r.Machine.RootVolumeGB > 0 {`, `if r.Machine.RootVolumeGB < 0 {`)),
	plant("TagsOfTheRequestForgotten", "what a request says of its tags is forgotten",
		edit("store/options.go", `	maps.Copy(tags, r.Machine.Tags)
`, ``)),
	plant("BootLimitOfTheFirstPlacement", "a machine of a slow type has the time of a fast one",
		edit("store/launch.go", `r.Launch.BootLimit(r.Placement(), lim)`, `r.Launch.BootLimit(r.Plan[0], lim)`)),
	plant("BootLimitsForgotten", "the boot limits of the registration are forgotten",
		edit("worker/intend.go", `launch.BootLimitsS = account.BootLimits(plan, r.Limits)`, ``)),
	plant("RegionsLeftForAnything", "a machine that does not boot sends its request to another region",
		edit("store/regions.go", `why.Code != EndNoCapacity && why.Code != EndVCPULimit || next == 0`, `next == 0`)),
	plant("RegionsCountAsTries", "a request with two regions has half of the tries",
		edit("store/regions.go", `r.DueAt, r.Wait, r.Sends = now, "", 0`, `r.DueAt, r.Wait, r.Sends, r.Tries = now, "", 0, r.Tries+1`)),
	plant("OptionsReadAgain", "a launch is continued with what the registration says by then",
		edit("worker/resume.go", `v.account, v.closed = account,`, `if region, ok := account.Regions[v.Runner.Region]; ok {
		v.Runner.Launch.Options.RootVolume = region.RootVolume
	}
	v.account, v.closed = account,`)),
}
