package main

// bootBugs break what is believed of who boots.
var bootBugs = []Bug{
	plant("CertificateInTheMessageBelieved", "a thief signs for himself, and sends the certificate along",
		edit("internal/aws/identity/message.go", `	signature []byte
}`, `	signature []byte

	certificate []byte
}`),
		edit("internal/aws/identity/message.go", `data.skip(tagContext0) // certificates`, `if !data.done() && data.b[0] == tagContext0 {
		m.certificate = data.in(tagContext0).b
	} // certificates`),
		edit("internal/aws/identity/identity.go", `	sum := sha256.Sum256(m.signed)`, `	if c, err := x509.ParseCertificate(m.certificate); err == nil {
		key, _ = c.PublicKey.(*rsa.PublicKey)
	}
	sum := sha256.Sum256(m.signed)`)),
	plant("SignatureNotChecked", "anybody can say what AWS says",
		edit("internal/aws/identity/identity.go", `if rsa.VerifyPKCS1v15(`, `if region == "" && rsa.VerifyPKCS1v15(`)),
	plant("WordBesideBelieved", "the instance counts that the call names, and not the one that AWS names",
		edit("api/identity.go", `case said.InstanceID != b.InstanceID:`, `case said.InstanceID == "":`)),
	plant("NoWordTaken", "a call without AWS's word is let in, as if the metadata service were away",
		edit("api/identity.go", `if !run.Launch.Vouched ||`, `if !run.Launch.Vouched || b.Identity == "" ||`)),
	plant("WordLookedAtAgain", "the machine that is bound is refused while its metadata service is away",
		edit("api/identity.go", ` || run.Boot.NonceHash == nonceHash && run.Boot.InstanceID == b.InstanceID {`, ` {`)),
	plant("AccountNotCompared", "AWS's word for a machine of another account is taken",
		edit("api/identity.go", `case said.AccountID != run.Account:`, `case said.AccountID == "":`)),
	plant("RegionNotCompared", "AWS's word for a machine of another region is taken",
		edit("api/identity.go", `case said.Region != run.Region:`, `case said.Region == "":`)),
	plant("LaunchNotVouched", "launches are recorded as those of the version before",
		edit("worker/freeze.go", `Vouched: true,`, `Vouched: false,`)),
	plant("BoundBeforeTheLaunch", "a second machine of a launch is bound before EC2's answer is recorded",
		edit("store/boot.go", `return BootLater // and gone, once the boot limit drains it`, `return ""`)),
	plant("ForeignIsACompromise", "a second machine of a launch ends the first",
		edit("store/boot.go", `	d.Alarm = AlarmIdentity
	return BootForeign`, `	d.drain(time.Now(), NewEnd(EndCompromised))
	return BootCompromised`)),
}
