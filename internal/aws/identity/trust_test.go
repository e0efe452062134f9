package identity_test

import (
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/alphagov/github-actions-runner-orchestration/internal/aws/identity"
	"github.com/alphagov/github-actions-runner-orchestration/internal/fleet/simfleet/simidentity"
	"github.com/alphagov/github-actions-runner-orchestration/internal/test/awstest"
)

// parsed returns the production files below a directory, by name.
func parsed(t *testing.T, dir string) map[string]*ast.File {
	t.Helper()
	all := map[string]*ast.File{}
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() || !strings.HasSuffix(path, ".go") || strings.HasSuffix(path, "_test.go") {
			return err
		}
		f, err := parser.ParseFile(token.NewFileSet(), path, nil, parser.SkipObjectResolution)
		all[filepath.ToSlash(strings.TrimPrefix(path, filepath.Clean(dir)+string(filepath.Separator)))] = f
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return all
}

// The certificates are in the program. Nothing that it is started with, or reads, adds one.
func TestNoEnvironmentVariableChangesWhomProductionTrusts(t *testing.T) {
	for name, value := range map[string]string{
		"SSL_CERT_FILE": "/tmp/ours.pem", "SSL_CERT_DIR": "/tmp", "AWS_CA_BUNDLE": "/tmp/ours.pem", "GARO_IDENTITY": simidentity.Own().PEM(),
		"GODEBUG": "x509sha1=1,rsa1024min=0", "AWS_EC2_METADATA_SERVICE_ENDPOINT": "http://127.0.0.1",
	} {
		t.Setenv(name, value)
	}
	if d, err := identity.AWS().Verify(region, simidentity.Own().Sign(ours)); err == nil {
		t.Errorf("a message of the simulation is believed: %+v", d)
	}
	if _, err := identity.AWS().Verify("us-west-2", ofAWS(t, "us-west-2")); err != nil {
		t.Errorf("a message of AWS is not believed: %v", err)
	}
	for name, f := range parsed(t, ".") {
		for _, i := range f.Imports {
			if path := strings.Trim(i.Path.Value, `"`); slices.Contains([]string{"os", "flag", "syscall", "net", "net/http"}, path) {
				t.Errorf("%s imports %s: what is trusted must not depend on where a program runs", name, path)
			}
		}
	}
}

func TestOnlySimulationsTrustAnotherCertificate(t *testing.T) {
	var found []string
	for name, f := range parsed(t, "../../..") {
		ast.Inspect(f, func(n ast.Node) bool {
			if s, ok := n.(*ast.SelectorExpr); ok && s.Sel.Name == "Only" {
				if x, ok := s.X.(*ast.Ident); ok && x.Name == "identity" {
					found = append(found, name)
				}
			}
			return true
		})
	}
	if want := []string{"internal/fleet/simfleet/simidentity/simidentity.go"}; !slices.Equal(found, want) {
		t.Errorf("identity.Only is called in %v, want it in %v alone", found, want)
	}
}

// The regions of AWS's secret clouds are in the SDK's list, and AWS publishes nothing of them.
func TestEveryPublicRegionHasACertificate(t *testing.T) {
	for _, p := range awstest.Partitions {
		for _, region := range p.Regions {
			if has := identity.AWS().Has(region); has == strings.Contains(p.Name, "-iso") {
				t.Errorf("%s of %s has a certificate: %t", region, p.Name, has)
			}
		}
	}
}
