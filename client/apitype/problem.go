package apitype

import "net/http"

// The codes of problems. A code never changes its meaning.
const (
	CodeMalformed        = "malformed_body"
	CodeUnauthenticated  = "unauthenticated"
	CodeForbidden        = "forbidden"
	CodeNotFound         = "not_found"
	CodeMethodNotAllowed = "method_not_allowed"
	CodeMismatch         = "idempotency_mismatch"
	CodeCompromised      = "compromised"
	CodeGone             = "gone"
	CodeTooLarge         = "body_too_large"
	CodeMediaType        = "unsupported_media_type"
	CodeInvalidField     = "invalid_field"
	CodeUnknownField     = "unknown_field"
	CodeTooEarly         = "too_early"
	CodeThrottled        = "throttled"
	CodeInternal         = "internal"
	CodeUnavailable      = "unavailable"
)

// ProblemType and a code make the type of a problem.
const ProblemType = "urn:garo:problem:"

// ProblemMedia is the content type of a problem.
const ProblemMedia = "application/problem+json"

// Kind is what all problems of one code have in common.
type Kind struct {
	Code   string
	Status int
	Title  string
}

// Problems lists every code, by status.
var Problems = []Kind{
	{CodeMalformed, http.StatusBadRequest, "The body is not one JSON object"},
	{CodeUnauthenticated, http.StatusUnauthorized, "The token is missing or not valid"},
	{CodeForbidden, http.StatusForbidden, "The account does not allow this"},
	{CodeNotFound, http.StatusNotFound, "There is no such thing, or the token may not see it"},
	{CodeMethodNotAllowed, http.StatusMethodNotAllowed, "The path does not have this method"},
	{CodeMismatch, http.StatusConflict, "The idempotency key was used with another body"},
	{CodeCompromised, http.StatusConflict, "The boot token was used by somebody else"},
	{CodeGone, http.StatusGone, "The machine is no longer wanted"},
	{CodeTooLarge, http.StatusRequestEntityTooLarge, "The body is too large"},
	{CodeMediaType, http.StatusUnsupportedMediaType, "The body is not application/json"},
	{CodeInvalidField, http.StatusUnprocessableEntity, "A field has a value that it cannot have"},
	{CodeUnknownField, http.StatusUnprocessableEntity, "A field is not known"},
	{CodeTooEarly, http.StatusTooEarly, "Not everything is recorded yet"},
	{CodeThrottled, http.StatusTooManyRequests, "Too many calls"},
	{CodeInternal, http.StatusInternalServerError, "Something is wrong with the API itself"},
	{CodeUnavailable, http.StatusServiceUnavailable, "Something that the API needs does not answer"},
}

// ProblemOf returns what is common to the problems of a code. It is false for a
// code that is not in Problems.
func ProblemOf(code string) (Kind, bool) {
	for _, k := range Problems {
		if k.Code == code {
			return k, true
		}
	}
	return Kind{}, false
}
