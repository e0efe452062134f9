package ec2proxy

import (
	"encoding/json"
	"encoding/xml"
	"fmt"
	"io"
	"net/http"
	"regexp"
)

// refusal is an error that AWS answers with.
type refusal struct {
	code, text string
	status     int // 0: as EC2 has it for the code
}

func refuse(code, format string, args ...any) *refusal {
	return &refusal{code: code, text: fmt.Sprintf(format, args...)}
}

func (r *refusal) Error() string { return r.code + ": " + r.text }

// statuses are those of EC2 that are not 400. A lack of capacity, and too many
// calls, are the server's errors.
// https://docs.aws.amazon.com/AWSEC2/latest/APIReference/errors-overview.html
var statuses = map[string]int{
	"AuthFailure":                          http.StatusUnauthorized,
	"AccessDenied":                         http.StatusForbidden,
	"ExpiredToken":                         http.StatusForbidden,
	"UnauthorizedOperation":                http.StatusForbidden,
	"InsufficientAddressCapacity":          http.StatusInternalServerError,
	"InsufficientCapacity":                 http.StatusInternalServerError,
	"InsufficientInstanceCapacity":         http.StatusInternalServerError,
	"InsufficientHostCapacity":             http.StatusInternalServerError,
	"InsufficientReservedInstanceCapacity": http.StatusInternalServerError,
	"InternalError":                        http.StatusInternalServerError,
	"InternalFailure":                      http.StatusInternalServerError,
	"RequestLimitExceeded":                 http.StatusServiceUnavailable,
	"ServiceUnavailable":                   http.StatusServiceUnavailable,
	"Unavailable":                          http.StatusServiceUnavailable,
}

func (r *refusal) httpStatus() int {
	if r.status != 0 {
		return r.status
	}
	if s, ok := statuses[r.code]; ok {
		return s
	}
	return http.StatusBadRequest
}

// binds reports whether a launch refused so has bound its client token: not if
// EC2 refused before it looked at the parameters, or does not know.
func (r *refusal) binds() bool {
	switch r.httpStatus() {
	case http.StatusUnauthorized, http.StatusForbidden, http.StatusServiceUnavailable:
		return false
	}
	return r.code != "InternalError" && r.code != "InternalFailure"
}

// requestID is of all answers that the proxy makes itself.
const requestID = "00000000-0000-0000-0000-000000000000"

type xmlError struct {
	Type    string `xml:",omitempty"`
	Code    string
	Message string
}

// write answers in the form of the service.
func (r *refusal) write(w http.ResponseWriter, service string) {
	var body []byte
	var err error
	switch service {
	case "ec2":
		w.Header().Set("Content-Type", "text/xml;charset=UTF-8")
		body, err = xml.Marshal(struct {
			XMLName   xml.Name   `xml:"Response"`
			Errors    []xmlError `xml:"Errors>Error"`
			RequestID string
		}{Errors: []xmlError{{Code: r.code, Message: r.text}}, RequestID: requestID})
	case "sts", "iam":
		kind := "Sender"
		if r.httpStatus() >= 500 {
			kind = "Receiver"
		}
		w.Header().Set("Content-Type", "text/xml")
		body, err = xml.Marshal(struct {
			XMLName   xml.Name `xml:"ErrorResponse"`
			Error     xmlError
			RequestID string `xml:"RequestId"`
		}{Error: xmlError{kind, r.code, r.text}, RequestID: requestID})
	default: // the JSON protocols
		w.Header().Set("Content-Type", "application/x-amz-json-1.1")
		w.Header().Set("X-Amzn-Requestid", requestID)
		body, err = json.Marshal(map[string]string{"__type": r.code, "message": r.text})
	}
	if err != nil {
		panic(err) // strings always marshal
	}
	w.WriteHeader(r.httpStatus())
	_, _ = w.Write(body) // a caller that went away misses it
}

// lostError is the outcome of a call that nobody learns of.
type lostError struct {
	silent bool // not a byte of the answer came
}

func (lostError) Error() string { return "no answer" }

// begin sends the first bytes of an answer and cuts the connection: of a call that
// has those, net/http knows that it arrived, and does not send it again.
func begin(w http.ResponseWriter) {
	if conn, _, err := http.NewResponseController(w).Hijack(); err == nil {
		_, _ = io.WriteString(conn, "HTTP/1.1 ")
		_ = conn.Close()
	}
}

// codeOf finds the code in an error answer of any protocol.
func codeOf(body []byte) string {
	if m := errorCode.FindSubmatch(body); m != nil {
		return string(m[1]) + string(m[2])
	}
	return "unknown"
}

var errorCode = regexp.MustCompile(`<Code>([\w.]+)</Code>|"__type"\s*:\s*"(?:[\w.]+#)?([\w.]+)"`)
