// Package repotest holds the repository to its own rules: who may import whom,
// what every package says of itself, and that the documents name nothing which
// does not exist. It has tests alone. Each rule is a function from the files or
// the packages to the list of what breaks it, and each is shown something bad
// that it must find, so that none can go blind.
package repotest
