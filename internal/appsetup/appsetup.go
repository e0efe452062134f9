// Package appsetup makes a GitHub App for a control plane, by GitHub's manifest flow
// (https://docs.github.com/en/apps/sharing-github-apps/registering-a-github-app-from-a-manifest):
// a person sends a form to GitHub in a browser, and comes back with a code that is good for
// the App's secrets, once.
//
// It promises that the code is taken from that person alone: the page is on this machine,
// under a path that nobody guesses, answers under its own address only, and demands the
// state that it gave out. Nothing is kept before the App's owner was compared and a person
// confirmed its number, and no secret is ever printed.
package appsetup

import (
	"context"
	"crypto/rand"
	"crypto/subtle"
	"encoding/base32"
	"encoding/json"
	"errors"
	"fmt"
	"html/template"
	"io"
	"net"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/alphagov/github-actions-runner-orchestration/internal/form"
	"github.com/alphagov/github-actions-runner-orchestration/internal/secret"
	"github.com/alphagov/github-actions-runner-orchestration/store"
)

// Config describes the App to make. All fields are needed but the last four.
type Config struct {
	Web     string // where people see GitHub, such as https://github.com
	API     string // where programs do, such as https://api.github.com
	Owner   string // the organization that is to own the App
	Name    string // of the App; GitHub wants one that nobody has
	Webhook string // where GitHub is to deliver

	// Repositories: runners register in repositories, and not in the organization.
	Repositories bool
	// Cancel: runs are cancelled that may have no machine.
	Cancel bool

	// Show tells the person which address to open. Confirm asks whether the App is theirs.
	Show    func(address string)
	Confirm func(App) (bool, error)

	HTTP   *http.Client // nil: http.DefaultClient
	Random io.Reader    // nil: crypto/rand.Reader
}

// App is what GitHub made.
type App struct {
	ID    int64
	Name  string
	Owner string // its login
	URL   string // its page
}

// Made is an App with its secrets.
type Made struct {
	App
	Key           secret.Text // the private key, in PEM form
	WebhookSecret secret.Text
}

// InstallURL is where the App is installed.
func (a App) InstallURL() string { return a.URL + "/installations/new" }

// manifest is what GitHub makes an App of.
func (c Config) manifest(redirect string) map[string]any {
	permissions := map[string]string{"metadata": "read", "actions": "read"}
	if c.Cancel {
		permissions["actions"] = "write"
	}
	if c.Repositories {
		permissions["administration"] = "write"
	} else {
		permissions["organization_self_hosted_runners"] = "write"
	}
	return map[string]any{
		"name": c.Name, "url": strings.TrimSuffix(c.Webhook, "/github/webhook"), "redirect_url": redirect, "public": false,
		"hook_attributes": map[string]any{"url": c.Webhook, "active": true},
		"default_events":  []string{"workflow_job"}, "default_permissions": permissions,
	}
}

// page has one button, and no script: what it sends is GitHub's to show before it makes
// anything.
var page = template.Must(template.New("").Parse(`<!doctype html><html lang="en"><meta charset="utf-8"><title>Make a GitHub App</title>
<form action="{{.Action}}" method="post"><input type="hidden" name="manifest" value="{{.Manifest}}">
<p>GitHub will ask you to make an App for <strong>{{.Owner}}</strong>, which delivers to {{.Webhook}}.</p><button>Go to GitHub</button></form></html>`))

// Create has a person make the App, and returns it once that person has confirmed it.
func Create(ctx context.Context, c Config) (Made, error) {
	if c.HTTP == nil {
		c.HTTP = http.DefaultClient
	}
	if c.Random == nil {
		c.Random = rand.Reader
	}
	code, err := c.code(ctx)
	if err != nil {
		return Made{}, err
	}
	made, err := c.convert(ctx, code)
	if err != nil {
		return Made{}, err
	}
	if !strings.EqualFold(made.Owner, c.Owner) {
		return Made{}, fmt.Errorf("the App %d belongs to %s, and not to %s: delete it at %s, and log in to GitHub as an owner of %s", made.ID, made.Owner, c.Owner, made.URL, c.Owner)
	}
	switch ok, err := c.Confirm(made.App); {
	case err != nil:
		return Made{}, err
	case !ok:
		return Made{}, fmt.Errorf("the App %d was not confirmed, and nothing is kept of it: delete it at %s", made.ID, made.URL)
	}
	return made, nil
}

// word returns 256 random bits.
func (c Config) word() (string, error) {
	var b [32]byte
	if _, err := io.ReadFull(c.Random, b[:]); err != nil {
		return "", fmt.Errorf("random word: %w", err)
	}
	return strings.ToLower(base32.StdEncoding.WithPadding(base32.NoPadding).EncodeToString(b[:])), nil
}

// code serves the page until somebody comes back from GitHub with the right state.
func (c Config) code(ctx context.Context) (string, error) {
	path, err := c.word()
	if err != nil {
		return "", err
	}
	state, err := c.word()
	if err != nil {
		return "", err
	}
	l, err := (&net.ListenConfig{}).Listen(ctx, "tcp", "127.0.0.1:0")
	if err != nil {
		return "", fmt.Errorf("listen for the browser: %w", err)
	}
	here := "http://" + l.Addr().String() + "/" + path
	codes := make(chan string, 1)
	server := &http.Server{Handler: c.handler(l.Addr().String(), "/"+path, state, here, codes), ReadHeaderTimeout: 10 * time.Second}
	served := make(chan error, 1)
	go func() { served <- server.Serve(l) }()
	c.Show(here)
	var code string
	select {
	case code = <-codes:
	case <-ctx.Done():
		err = ctx.Err()
	case err = <-served:
		return "", fmt.Errorf("serve the browser: %w", err)
	}
	stop, cancel := context.WithTimeout(context.WithoutCancel(ctx), 3*time.Second) // the browser gets its last page
	defer cancel()
	_ = server.Shutdown(stop) // it is over anyway
	<-served
	return code, err
}

// codeForm is what GitHub's codes are made of.
var codeForm = form.Form{{Of: form.Letter + form.Digit + "--__", Min: 1, Max: 128}}

func (c Config) handler(host, path, state, here string, codes chan<- string) http.Handler {
	action := strings.TrimSuffix(c.Web, "/") + "/organizations/" + url.PathEscape(c.Owner) + "/settings/apps/new?state=" + state
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		h := w.Header()
		h.Set("Cache-Control", "no-store")
		h.Set("Referrer-Policy", "no-referrer")
		h.Set("X-Content-Type-Options", "nosniff")
		h.Set("Content-Security-Policy", "default-src 'none'; form-action "+c.Web+"; frame-ancestors 'none'")
		q := r.URL.Query()
		switch {
		case r.Host != host: // another name that leads here, as of a page that means harm
			http.Error(w, "ask by the address that garo printed", http.StatusMisdirectedRequest)
		case r.Method != http.MethodGet || r.URL.Path != path && r.URL.Path != path+"/made":
			http.NotFound(w, r)
		case r.URL.Path == path:
			manifest, err := json.Marshal(c.manifest(here + "/made"))
			if err != nil {
				panic(err) // texts always marshal
			}
			h.Set("Content-Type", "text/html; charset=utf-8")
			_ = page.Execute(w, map[string]string{"Action": action, "Manifest": string(manifest), "Owner": c.Owner, "Webhook": c.Webhook}) // the browser is gone
		case subtle.ConstantTimeCompare([]byte(q.Get("state")), []byte(state)) != 1 || !codeForm.Fits(q.Get("code")):
			http.Error(w, "this does not come from the page that garo printed: begin again", http.StatusForbidden)
		default:
			select {
			case codes <- q.Get("code"):
				fmt.Fprintln(w, "GitHub made the App. Go back to the terminal.")
			default:
				http.Error(w, "this was used already", http.StatusGone)
			}
		}
	})
}

// maxAnswer bounds GitHub's answer, which has 5 KB.
const maxAnswer = 1 << 20

// convert exchanges the code for the App
// (https://docs.github.com/en/rest/apps/apps#create-a-github-app-from-a-manifest).
func (c Config) convert(ctx context.Context, code string) (Made, error) {
	var out struct {
		ID    int64 `json:"id"`
		Owner struct {
			Login string `json:"login"`
		} `json:"owner"`
		Name          string      `json:"name"`
		HTMLURL       string      `json:"html_url"`
		PEM           secret.Text `json:"pem"`
		WebhookSecret secret.Text `json:"webhook_secret"`
	}
	if err := c.call(ctx, http.MethodPost, "/app-manifests/"+code+"/conversions", secret.Text{}, http.StatusCreated, &out); err != nil {
		return Made{}, fmt.Errorf("make the App of its manifest: %w", err)
	}
	made := Made{App: App{ID: out.ID, Name: out.Name, Owner: out.Owner.Login, URL: out.HTMLURL}, Key: out.PEM, WebhookSecret: out.WebhookSecret}
	if made.ID <= 0 || made.Key.Empty() || !strings.HasPrefix(made.URL, strings.TrimSuffix(c.Web, "/")+"/") {
		return Made{}, errors.New("make the App of its manifest: GitHub's answer lacks its number, its key or its page: delete the App in the settings of " + c.Owner)
	}
	if err := store.CheckWebhookSecrets([]secret.Text{made.WebhookSecret}); err != nil {
		return Made{}, fmt.Errorf("the App's webhook secret: %w: set one at %s", err, made.URL)
	}
	return made, nil
}

// Installation returns the number of the App's installation in its owner's organization,
// or 0 if there is none yet. proof is the App's token.
func Installation(ctx context.Context, c Config, proof secret.Text) (int64, error) {
	if c.HTTP == nil {
		c.HTTP = http.DefaultClient
	}
	var out []struct {
		ID      int64 `json:"id"`
		Account struct {
			Login string `json:"login"`
		} `json:"account"`
	}
	if err := c.call(ctx, http.MethodGet, "/app/installations?per_page=100", proof, http.StatusOK, &out); err != nil {
		return 0, fmt.Errorf("look for the App's installation: %w", err)
	}
	for _, i := range out {
		if strings.EqualFold(i.Account.Login, c.Owner) {
			return i.ID, nil
		}
	}
	return 0, nil
}

// call makes one call of GitHub. An error has GitHub's own words, and none of the path: it
// may hold the code.
func (c Config) call(ctx context.Context, method, path string, proof secret.Text, want int, out any) error {
	ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, method, strings.TrimSuffix(c.API, "/")+path, nil)
	if err != nil {
		return fmt.Errorf("%q is no address of GitHub's API: want one such as https://api.github.com", c.API)
	}
	req.Header.Set("Accept", "application/vnd.github+json")
	req.Header.Set("User-Agent", "garo")
	if !proof.Empty() {
		req.Header.Set("Authorization", "Bearer "+proof.Reveal())
	}
	res, err := c.HTTP.Do(req)
	if err != nil {
		if u, ok := errors.AsType[*url.Error](err); ok {
			err = u.Err
		}
		return err
	}
	defer res.Body.Close()
	b, err := io.ReadAll(io.LimitReader(res.Body, maxAnswer))
	if err != nil {
		return err
	}
	if res.StatusCode != want {
		var said struct {
			Message string `json:"message"`
		}
		_ = json.Unmarshal(b, &said) // it may be no JSON
		return fmt.Errorf("GitHub answers %d: %.200s", res.StatusCode, said.Message)
	}
	if json.Unmarshal(b, out) != nil {
		return fmt.Errorf("unexpected answer from %s, and not one of GitHub: check the address of its API", c.API)
	}
	return nil
}
