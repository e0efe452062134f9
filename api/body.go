package api

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"mime"
	"net/http"
	"reflect"
	"strings"
	"unicode/utf8"

	"github.com/alphagov/github-actions-runner-orchestration/client/apitype"
)

const (
	// maxBody is far above the largest sensible body, one with all its lists full.
	maxBody = 16 << 10
	// maxDepth is one list inside the object, and room for a clear answer about
	// what is deeper by a little.
	maxDepth = 8
)

func malformed(format string, args ...any) error {
	return &problem{code: apitype.CodeMalformed, detail: fmt.Sprintf(format, args...)}
}

// readBody decodes the body of r into v, a pointer to a struct: exactly one JSON
// object of at most maxBody bytes, with the names of v's fields exactly,
// each once, and no null. A call without a body may leave it out, or send {}.
func readBody(r *http.Request, v any) error {
	_, bodiless := v.(*none)
	if r.Method == http.MethodGet || r.Method == http.MethodHead {
		return nil
	}
	body, err := io.ReadAll(http.MaxBytesReader(nil, r.Body, maxBody))
	if _, ok := errors.AsType[*http.MaxBytesError](err); ok {
		return &problem{code: apitype.CodeTooLarge, detail: fmt.Sprintf("Shorten the lists: a body has at most %d bytes.", maxBody)}
	}
	if err != nil {
		return malformed("The body did not arrive whole.")
	}
	if bodiless && len(body) == 0 {
		return nil
	}
	if !isJSON(r.Header) {
		return &problem{code: apitype.CodeMediaType, detail: "Send application/json, in UTF-8 and not compressed."}
	}
	if err := checkJSON(body, fieldsOf(v)); err != nil {
		return err
	}
	if err := json.Unmarshal(body, v); err != nil {
		if e, ok := errors.AsType[*json.UnmarshalTypeError](err); ok {
			return invalid(e.Field, "It has the wrong type. Want %s.", jsonFor(e.Type))
		}
		return malformed("The body cannot be read.")
	}
	return nil
}

// jsonFor names the JSON that a type is read from. JSON Schema takes 3.0 and any size for
// an integer; encoding/json and this API take neither.
func jsonFor(t reflect.Type) string {
	switch t.Kind() {
	case reflect.Int, reflect.Int64:
		return "a whole number below 2^63, without a point or an exponent"
	case reflect.Slice:
		return "a list"
	case reflect.Map, reflect.Struct:
		return "an object"
	}
	return "a " + t.Kind().String()
}

func isJSON(h http.Header) bool {
	media, params, err := mime.ParseMediaType(h.Get("Content-Type"))
	if err != nil || media != "application/json" || len(h.Values("Content-Type")) != 1 || h.Get("Content-Encoding") != "" {
		return false
	}
	charset, ok := params["charset"]
	return !ok || strings.EqualFold(charset, "utf-8")
}

// fieldsOf returns the JSON names of the fields of the struct that v points to.
func fieldsOf(v any) map[string]bool {
	t := reflect.TypeOf(v).Elem()
	names := make(map[string]bool, t.NumField())
	for f := range t.Fields() {
		name, _, _ := strings.Cut(f.Tag.Get("json"), ",")
		names[name] = true
	}
	return names
}

// checkJSON refuses what encoding/json would let pass: of two equal names it
// keeps the last, and it takes names in any case, null for anything, and bytes
// that are no text.
func checkJSON(body []byte, fields map[string]bool) error {
	if !utf8.Valid(body) {
		return malformed("The body is not UTF-8.")
	}
	if !json.Valid(body) {
		return malformed("The body is not one JSON value.")
	}
	type level struct {
		object, value bool // value: the next token of an object is one
		name          string
		seen          map[string]bool
	}
	var stack []level
	d := json.NewDecoder(bytes.NewReader(body))
	d.UseNumber() // what a number is worth is for its field to say
	for {
		token, err := d.Token()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return malformed("The body cannot be read.")
		}
		if len(stack) == 0 && token != json.Delim('{') {
			return malformed("The body is not a JSON object.")
		}
		var top *level
		if len(stack) > 0 {
			top = &stack[len(stack)-1]
		}
		if name, ok := token.(string); ok && top.object && !top.value {
			if len(stack) == 1 && !fields[name] {
				return &problem{code: apitype.CodeUnknownField, field: quotable(name), detail: "This call does not know the field: correct its name, which is in lower case, or leave it out. An older API knows fewer fields."}
			}
			if top.seen[name] {
				return &problem{code: apitype.CodeMalformed, field: quotable(name), detail: "The body has this field twice: send it once."}
			}
			top.seen[name], top.name, top.value = true, name, true
			continue
		}
		if token == nil {
			return invalid(stack[0].name, "It is null. Leave it out instead.")
		}
		if top != nil {
			top.value = false
		}
		switch token {
		case json.Delim('{'):
			stack = append(stack, level{object: true, seen: map[string]bool{}})
		case json.Delim('['):
			stack = append(stack, level{})
		case json.Delim('}'), json.Delim(']'):
			stack = stack[:len(stack)-1]
			continue
		}
		if len(stack) > maxDepth {
			return malformed("The body is nested deeper than %d levels.", maxDepth)
		}
	}
}

// quotable returns a name that a caller made up if it is harmless to show, and
// nothing otherwise.
func quotable(name string) string {
	if shownForm.Fits(name) {
		return name
	}
	return ""
}
