# Everything here needs Go, git and make alone; the first run downloads modules.

# Tools are built from tools/go.mod, so that none of them moves a version that
# GARO itself is built with.
TOOL = go tool -modfile=tools/go.mod

# The race detector needs a C compiler; Go says 0 where there is none.
RACE = $(if $(filter 1,$(shell go env CGO_ENABLED)),-race,$(warning no C compiler: testing without the race detector))

# Go's own limit for the tests of one package, written down.
TIMEOUT   ?= 10m
# More flags for go test, such as -run or -json.
TESTFLAGS ?=
# How long each fuzz target runs.
FUZZTIME  ?= 30s
# benchstat wants at least six runs to tell a difference from noise.
COUNT     ?= 6
BENCH     ?= .

# A binary depends on its sources alone: not on the path or the state of the checkout.
GOBUILD = CGO_ENABLED=0 go build -trimpath -buildvcs=false -ldflags='-s -w'

# $(call packages,PATTERN) lists the packages with a test file that matches.
packages = $(shell grep -rlE --include='*_test.go' '$(1)' . | sed 's|/[^/]*$$||' | sort -u)

.PHONY: help
help: ## Show this list
	@sed -n 's/^\([a-z][a-z-]*\):.*## \(.*\)/\1 \2/p' $(MAKEFILE_LIST) | \
		while read -r target text; do printf '  make %-8s %s\n' "$$target" "$$text"; done

.PHONY: demo
demo: bin/garo ## Tell one story of runners on this machine, and check its promises
	bin/garo demo

.PHONY: run
run: bin/garo ## Run the whole of GARO on this machine, until interrupted
	bin/garo local

.PHONY: build
build: bin/garo bin/garo-agent-linux-amd64 bin/garo-agent-linux-arm64 ## Build the CLI and the agents into bin/

# Go knows better than make what is up to date.
.PHONY: bin/garo bin/garo-agent-linux-amd64 bin/garo-agent-linux-arm64
bin/garo:
	$(GOBUILD) -o $@ ./cmd/garo
bin/garo-agent-linux-amd64 bin/garo-agent-linux-arm64: bin/garo-agent-linux-%:
	GOOS=linux GOARCH=$* $(GOBUILD) -o $@ ./cmd/garo-agent

.PHONY: check
check: ## Everything that reads the code without running it
	gofmt -d .
	go mod tidy -diff
	go -C tools mod tidy -diff
	go mod verify
	go vet ./...
	go fix -diff ./...
	$(TOOL) staticcheck ./...
	$(TOOL) shfmt -d .
	@if command -v shellcheck >/dev/null; then \
		echo shellcheck; $(TOOL) shfmt -f . | xargs shellcheck $(wildcard internal/bootstrap/testdata/*.golden); \
	else \
		echo 'shellcheck is not installed: shell scripts are checked for form alone'; \
	fi
	$(TOOL) actionlint

.PHONY: test
test: ## Run all tests, in random order and with the race detector
	@go test $(strip $(RACE) -shuffle=on -timeout=$(TIMEOUT) $(TESTFLAGS)) ./...

.PHONY: cover
cover: ## Show how much of each package all tests together reach
	@mkdir -p bin
	go test -shuffle=on -timeout=$(TIMEOUT) -coverpkg=./... -coverprofile=bin/cover.out ./... >bin/cover.log || { cat bin/cover.log; exit 1; }
	go tool cover -func=bin/cover.out

.PHONY: golden
golden: ## Write the golden files anew; read their diff before you commit it
	go test $(or $(call packages,flag[.]Bool.*"update"),$(error no package has golden files)) -run Golden -count=1 -args -update

.PHONY: bench
bench: ## Run the benchmarks in benchstat's form (BENCH=regexp, COUNT=6)
	go test -run '^$$' -bench '$(BENCH)' -benchmem -count=$(COUNT) $(or $(call packages,^func Benchmark),$(error no package has benchmarks))

.PHONY: fuzz
fuzz: ## Run every fuzz target for FUZZTIME (30s), one after another
	@set -e; for package in $(or $(call packages,^func Fuzz),$(error no package has fuzz targets)); do \
		targets=$$(go test -list '^Fuzz' "$$package"); \
		for target in $$(printf '%s\n' "$$targets" | grep '^Fuzz'); do \
			echo "$$package $$target"; \
			go test -run '^$$' -fuzz "^$$target\$$" -fuzztime $(FUZZTIME) "$$package"; \
		done; \
	done

.PHONY: clean
clean: ## Remove what make built
	rm -rf bin
