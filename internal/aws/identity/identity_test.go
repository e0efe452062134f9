package identity_test

import (
	"bytes"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"os"
	"runtime"
	"slices"
	"strings"
	"testing"

	"github.com/alphagov/github-actions-runner-orchestration/internal/aws/identity"
	"github.com/alphagov/github-actions-runner-orchestration/internal/fleet/simfleet/simidentity"
)

const region = "eu-west-2"

var ours = identity.Document{AccountID: "111122223333", Region: region, InstanceID: "i-0123456789abcdef0", ImageID: "ami-1", InstanceType: "t3a.micro"}

// ofAWS reads a message of AWS's own.
func ofAWS(t testing.TB, region string) string {
	t.Helper()
	b, err := os.ReadFile("testdata/" + region + ".txt")
	if err != nil {
		t.Fatal(err)
	}
	return strings.TrimSpace(string(b))
}

func TestMessagesOfAWSAreBelieved(t *testing.T) {
	for region, want := range map[string]identity.Document{
		"us-west-1": {AccountID: "883474662888", Region: "us-west-1", InstanceID: "i-01b940c45fd11fe74", ImageID: "ami-0ce3c55a31d29040e", InstanceType: "t2.micro"},
		"us-west-2": {AccountID: "278576220453", Region: "us-west-2", InstanceID: "i-078517ca8a70a1dde", ImageID: "ami-0fa9e1f64142cde17", InstanceType: "t2.medium"},
	} {
		got, err := identity.AWS().Verify(region, ofAWS(t, region))
		if err != nil || got != want {
			t.Errorf("%s: Verify = %+v, %v; want %+v", region, got, err, want)
		}
	}
}

func TestMessageOfAnotherRegionsCertificateIsRefused(t *testing.T) {
	message := ofAWS(t, "us-west-2")
	for _, region := range identity.Regions() {
		_, err := identity.AWS().Verify(region, message)
		if (err == nil) != (region == "us-west-2") {
			t.Errorf("%s believes a message of us-west-2: %t", region, err == nil)
		}
	}
}

func TestEveryPublishedCertificateIsAnRSAKeyOf2048Bits(t *testing.T) {
	b, err := os.ReadFile("rsa2048.json")
	if err != nil {
		t.Fatal(err)
	}
	var all map[string]string
	if err := json.Unmarshal(b, &all); err != nil {
		t.Fatal(err)
	}
	if got := len(identity.Regions()); got != len(all) || got < 39 {
		t.Errorf("%d regions, and %d certificates; want all, and 39 or more", got, len(all))
	}
	serials := map[string]string{}
	for region, text := range all {
		block, rest := pem.Decode([]byte(text))
		if block == nil || len(bytes.TrimSpace(rest)) > 0 {
			t.Errorf("%s: not one certificate", region)
			continue
		}
		c, err := x509.ParseCertificate(block.Bytes)
		if err != nil {
			t.Errorf("%s: %v", region, err)
			continue
		}
		if other := serials[c.SerialNumber.String()]; other != "" {
			t.Errorf("%s and %s have one certificate", region, other)
		}
		serials[c.SerialNumber.String()] = region
		// A key that is not read is not reached: the message is no message.
		if _, err := identity.AWS().Verify(region, "AAAA"); err == nil || !strings.Contains(err.Error(), "not one signed message") {
			t.Errorf("%s: %v, want its key to be read", region, err)
		}
	}
}

func TestRegionWithoutACertificateHasNoTrust(t *testing.T) {
	trust := simidentity.Own().Trust()
	for _, region := range []string{"", "eu-west-9", "EU-WEST-2", "eu-west-2 "} {
		if trust.Has(region) || identity.AWS().Has(region) {
			t.Errorf("%q has a certificate", region)
		}
		if _, err := trust.Verify(region, simidentity.Own().Sign(ours)); err == nil || !strings.Contains(err.Error(), "no certificate") {
			t.Errorf("%q: %v, want no certificate", region, err)
		}
	}
	if _, err := (identity.Trust{}).Verify(region, simidentity.Own().Sign(ours)); err == nil || (identity.Trust{}).Has(region) {
		t.Error("the zero value trusts somebody")
	}
	if !trust.Has(region) || !identity.AWS().Has(region) {
		t.Errorf("%s has no certificate", region)
	}
}

func TestProductionBelievesNoOtherSigner(t *testing.T) {
	if d, err := identity.AWS().Verify(region, simidentity.Own().Sign(ours)); err == nil {
		t.Errorf("a message of the simulation is believed: %+v", d)
	}
	if _, err := simidentity.Own().Trust().Verify("us-west-2", ofAWS(t, "us-west-2")); err == nil {
		t.Error("the simulation believes a message of AWS")
	}
}

func TestKeyOfAnotherSizeIsRefused(t *testing.T) {
	for name, certificate := range map[string]string{
		"NoPEM": "x", "NoCertificate": "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n",
		"RSA1024": certificateOf(t, 1024), "RSA3072": certificateOf(t, 3072), "ECDSA": certificateOf(t, 0),
	} {
		if _, err := identity.Only(certificate).Verify(region, simidentity.Own().Sign(ours)); err == nil || !strings.Contains(err.Error(), "certificate of "+region) {
			t.Errorf("%s: %v, want the certificate refused", name, err)
		}
	}
}

// verify returns what the simulation's trust says of a message.
func verify(message []byte) (identity.Document, error) {
	return simidentity.Own().Trust().Verify(region, base64.StdEncoding.EncodeToString(message))
}

func TestEveryFormOfBERIsRead(t *testing.T) {
	s := simidentity.Own()
	content := simidentity.Content(ours)
	half := len(content) / 2
	for name, message := range map[string][]byte{
		"AsAWSWritesIt":    s.Message(content),
		"AllLengthsKnown":  definite(content, s.SignerInfo(content)),
		"InOnePiece":       message(withContent(simidentity.DER(4, content)), s.SignerInfo(content)),
		"InPieces":         message(withContent(simidentity.BER(0x24, simidentity.DER(4, content[:half]), simidentity.DER(4), simidentity.DER(4, content[half:]))), s.SignerInfo(content)),
		"InKnownPieces":    message(withContent(simidentity.DER(0x24, simidentity.DER(4, content[:half]), simidentity.DER(4, content[half:]))), s.SignerInfo(content)),
		"LengthsInLong":    message(withContent(long(4, content)), s.SignerInfo(content)),
		"AlgorithmOf2017":  message(withContent(simidentity.DER(4, content)), bytes.Replace(s.SignerInfo(content), oidRSA(0x0b), oidRSA(0x01), 1)),
		"WithACertificate": simidentity.Signed(content, s.Certificate, s.SignerInfo(content)),
	} {
		if got, err := verify(message); err != nil || got != ours {
			t.Errorf("%s: Verify = %+v, %v; want %+v", name, got, err, ours)
		}
	}
}

func TestMessageThatAWSDidNotSignIsRefused(t *testing.T) {
	s, thief := simidentity.Own(), simidentity.New()
	content := simidentity.Content(ours)
	sibling := ours
	sibling.InstanceID = "i-0fedcba9876543210"
	other := simidentity.Content(sibling)
	info := s.SignerInfo(content)
	for name, c := range map[string]struct {
		message []byte
		why     string
	}{
		"ZeroSigners":                    {simidentity.Signed(content, nil), "one signer"},
		"TwoSigners":                     {simidentity.Signed(content, nil, info, info), "one signer"},
		"TheThiefAsSecondSigner":         {simidentity.Signed(content, nil, info, thief.SignerInfo(content)), "one signer"},
		"AnothersKey":                    {thief.Message(content), "not signed"},
		"AnothersKeyWithItsCertificate":  {simidentity.Signed(content, thief.Certificate, thief.SignerInfo(content)), "not signed"},
		"AnothersKeyWithBoth":            {simidentity.Signed(content, slices.Concat(s.Certificate, thief.Certificate), thief.SignerInfo(content)), "not signed"},
		"AnotherContent":                 {simidentity.Signed(other, nil, info), "attributes"},
		"AnotherContentAndItsDigest":     {simidentity.Signed(other, nil, forged(s, thief, content, other)), "not signed"},
		"NoContent":                      {message(simidentity.BER(0x30, oidDataWhole), info), "form"},
		"EmptyContent":                   {simidentity.Signed(nil, nil, info), "attributes"},
		"ContentThatIsNoDocument":        {s.Message([]byte("[]")), "no document"},
		"SHA1":                           {sha1Signed(t, s, content), "SHA-256"},
		"SHA1OfTheSigner":                {message(withContent(simidentity.DER(4, content)), sha1Signer(t, s, content)), "SHA-256"},
		"SHA512OfTheMessage":             {bytes.Replace(s.Message(content), sha256OID, sha512OID, 1), "SHA-256"},
		"TwoDigests":                     {bytes.Replace(s.Message(content), simidentity.DER(0x31, sha256ID), simidentity.DER(0x31, sha256ID, sha256ID), 1), "SHA-256"},
		"SHA1WithRSA":                    {simidentity.Signed(content, nil, bytes.Replace(info, oidRSA(0x0b), oidRSA(0x05), 1)), "SHA-256"},
		"PSS":                            {simidentity.Signed(content, nil, bytes.Replace(info, oidRSA(0x0b), oidRSA(0x0a), 1)), "SHA-256"},
		"NoSignedAttributes":             {simidentity.Signed(content, nil, bare(t, s, content)), "attributes"},
		"AttributesAsContent":            {simidentity.Signed(attributesOf(content), nil, bare(t, s, attributesOf(content))), "attributes"},
		"AttributesWithoutDigest":        {simidentity.Signed(content, nil, s.SignerInfoOf(kindOf(oidDataWhole))), "attributes"},
		"AttributesWithoutKind":          {simidentity.Signed(content, nil, s.SignerInfoOf(digestOf(content))), "attributes"},
		"AttributesOfAnotherKind":        {simidentity.Signed(content, nil, s.SignerInfoOf(kindOf(sha256OID), digestOf(content))), "attributes"},
		"TwoDigestsOfTheContent":         {simidentity.Signed(content, nil, s.SignerInfoOf(kindOf(oidDataWhole), digestOf(content), digestOf(content))), "attributes"},
		"DigestsOfBothContents":          {simidentity.Signed(other, nil, s.SignerInfoOf(kindOf(oidDataWhole), digestOf(content), digestOf(other))), "attributes"},
		"TwoValuesOfADigest":             {simidentity.Signed(content, nil, s.SignerInfoOf(kindOf(oidDataWhole), twoDigests(content, other))), "attributes"},
		"AttributesOfAnIndefiniteLength": {simidentity.Signed(content, nil, loose(s, content)), "attributes"},
		"CutSignature":                   {simidentity.Signed(content, nil, cut(info)), "not signed"},
		"UnsignedAttributes":             {simidentity.Signed(content, nil, behind(info, simidentity.DER(0xa1, digestOf(content)))), "form"},
		"SomethingBehind":                {append(s.Message(content), 0), "form"},
		"AnotherKindOfMessage":           {bytes.Replace(s.Message(content), oidData(2), oidData(3), 1), "form"},
		"AnotherKindOfContent":           {bytes.Replace(s.Message(content), oidData(1), oidData(5), 1), "form"},
	} {
		d, err := verify(c.message)
		if err == nil {
			t.Errorf("%s is believed: %+v", name, d)
		} else if !strings.Contains(err.Error(), c.why) || d != (identity.Document{}) {
			t.Errorf("%s: %v with %+v; want %q and nothing", name, err, d, c.why)
		}
	}
}

// Each byte of a message of AWS counts: whatever changes one, and is believed, says the same.
func TestNoChangedByteChangesWhatIsSaid(t *testing.T) {
	for _, region := range []string{"us-west-1", "us-west-2"} {
		whole, err := base64.StdEncoding.DecodeString(ofAWS(t, region))
		if err != nil {
			t.Fatal(err)
		}
		want, err := identity.AWS().Verify(region, ofAWS(t, region))
		if err != nil {
			t.Fatal(err)
		}
		for at := range whole {
			for _, bits := range []byte{0x01, 0x20, 0x80} { // of a length, a tag and a form
				changed := slices.Clone(whole)
				changed[at] ^= bits
				if d, err := identity.AWS().Verify(region, base64.StdEncoding.EncodeToString(changed)); err == nil && d != want {
					t.Fatalf("with bits %x of byte %d changed, it says %+v", bits, at, d)
				}
			}
			if d, err := identity.AWS().Verify(region, base64.StdEncoding.EncodeToString(whole[:at])); err == nil {
				t.Fatalf("the first %d bytes are believed: %+v", at, d)
			}
		}
	}
}

func TestOddTextIsRefused(t *testing.T) {
	text := simidentity.Own().Sign(ours)
	for name, c := range map[string]struct{ text, why string }{
		"None":         {"", "there is none"},
		"TooLong":      {strings.Repeat("A", identity.MaxSize+1), "characters"},
		"PEM":          {"-----BEGIN PKCS7-----\n" + text + "\n-----END PKCS7-----", "not base64"},
		"Spaces":       {text[:8] + " " + text[8:], "not base64"},
		"URLAlphabet":  {"_-__", "not base64"},
		"TheDocument":  {string(simidentity.Content(ours)), "not base64"},
		"NotPadded":    {"AAA", "not base64"},
		"LooseBits":    {"AAB=", "not base64"},
		"OnlyNewlines": {"\n\n", "form"},
	} {
		if _, err := simidentity.Own().Trust().Verify(region, c.text); err == nil || !strings.Contains(err.Error(), c.why) {
			t.Errorf("%s: %v, want %q", name, err, c.why)
		}
	}
	for name, text := range map[string]string{"Windows": strings.ReplaceAll(text, "\n", "\r\n"), "OneLine": strings.ReplaceAll(text, "\n", "")} {
		if got, err := simidentity.Own().Trust().Verify(region, text); err != nil || got != ours {
			t.Errorf("%s: %+v, %v; want it read", name, got, err)
		}
	}
}

// hostile are messages that ask for much: lengths beyond everything, lengths without an
// end, levels without a number.
func hostile() map[string][]byte {
	most := identity.MaxSize / 4 * 3
	return map[string][]byte{
		"LengthOf4GB":         {0x30, 0x84, 0xff, 0xff, 0xff, 0xff, 0},
		"LengthOf16MB":        {0x30, 0x83, 0xff, 0xff, 0xff, 0},
		"LengthOf127Bytes":    append([]byte{0x30, 0xff}, bytes.Repeat([]byte{0xff}, 127)...),
		"LengthBeyondTheEnd":  {0x30, 0x7f, 0},
		"LengthOfNoBytes":     {0x30, 0x83},
		"NoLength":            {0x30},
		"PrimitiveIndefinite": {0x04, 0x80, 0, 0},
		"LongTag":             {0x3f, 0x81, 0x01, 0},
		"Ends":                make([]byte, most),
		"Levels":              bytes.Repeat([]byte{0x30, 0x80}, most/2),
		"LevelsThatEnd":       append(bytes.Repeat([]byte{0x30, 0x80}, most/4), make([]byte, most/2)...),
		"Pieces":              message(withContent(simidentity.BER(0x24, bytes.Repeat([]byte{4, 0}, most/2-100)))),
		"Signers":             simidentity.Signed(nil, nil, bytes.Repeat([]byte{0x30, 0}, most/2-100)),
		"Attributes":          simidentity.Signed(nil, nil, simidentity.Own().SignerInfoOf(bytes.Repeat([]byte{0x30, 0}, most/2-300))),
	}
}

func TestHostileMessagesAreRefused(t *testing.T) {
	for name, message := range hostile() {
		if len(base64.StdEncoding.EncodeToString(message)) > identity.MaxSize {
			t.Errorf("%s has %d bytes, which nobody reads", name, len(message))
		}
		if d, err := verify(message); err == nil {
			t.Errorf("%s is believed: %+v", name, d)
		}
	}
}

// mostMemory is what a verification may allocate, whatever it is given: the message
// three times over (its bytes, its pieces, its attributes) and what the certificate and
// the signature take.
const mostMemory = 3*identity.MaxSize + 24<<10

// allocated returns how many bytes f allocates.
func allocated(f func()) uint64 {
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	f()
	runtime.ReadMemStats(&after)
	return after.TotalAlloc - before.TotalAlloc
}

func TestMemoryOfAVerificationIsBounded(t *testing.T) {
	all := hostile()
	all["Good"] = simidentity.Own().Message(simidentity.Content(ours))
	all["LargestContent"] = simidentity.Own().Message(append(bytes.Repeat([]byte(" "), 5000), simidentity.Content(ours)...))
	for name, message := range all {
		_, _ = verify(message) // the first reads the certificates
		text := base64.StdEncoding.EncodeToString(message)
		if got := allocated(func() { _, _ = simidentity.Own().Trust().Verify(region, text) }); got > mostMemory {
			t.Errorf("%s takes %d bytes, and %d are the most", name, got, mostMemory)
		}
	}
}

func FuzzVerify(f *testing.F) {
	for _, region := range []string{"us-west-1", "us-west-2"} {
		b, err := base64.StdEncoding.DecodeString(ofAWS(f, region))
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b)
	}
	s := simidentity.Own()
	good := s.Message(simidentity.Content(ours))
	f.Add(good)
	f.Add(definite(simidentity.Content(ours), s.SignerInfo(simidentity.Content(ours))))
	for _, m := range hostile() {
		f.Add(m[:min(len(m), 256)]) // a large one keeps the engine busy for a minute, to make it smaller
	}
	f.Fuzz(func(t *testing.T, message []byte) {
		text := base64.StdEncoding.EncodeToString(message)
		for _, region := range []string{"us-west-1", "us-west-2"} {
			if d, err := identity.AWS().Verify(region, text); err == nil && d.Region != region {
				t.Fatalf("%s believes %+v", region, d)
			}
		}
		if d, err := s.Trust().Verify(region, text); err == nil && d != ours {
			t.Fatalf("what nobody signed is believed: %+v", d)
		}
	})
}

func BenchmarkVerify(b *testing.B) {
	text := ofAWS(b, "us-west-2")
	b.ReportAllocs()
	for b.Loop() {
		if _, err := identity.AWS().Verify("us-west-2", text); err != nil {
			b.Fatal(err)
		}
	}
}
