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
	plant("OptionsReadAgain", "a launch is continued with what the registration says by then",
		edit("worker/resume.go", `v.account, v.closed = account,`, `if region, ok := account.Regions[v.Runner.Region]; ok {
		v.Runner.Launch.Options.RootVolume = region.RootVolume
	}
	v.account, v.closed = account,`)),
}
