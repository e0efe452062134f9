# Everything here needs Go, git and make alone; the first run downloads modules.

# Tools are built from tools/go.mod, so that none of them moves a version that
# GARO itself is built with.
TOOL = go tool -modfile=tools/go.mod

# The race detector needs a C compiler; Go says 0 where there is none.
RACE = $(if $(filter 1,$(shell go env CGO_ENABLED)),-race,$(warning no C compiler: testing without the race detector))

# For the tests of one package: the simulation takes eight minutes on two busy cores with
# the race detector, and Go's own limit is ten.
TIMEOUT   ?= 20m
# More flags for go test, such as -run.
TESTFLAGS ?=
# How long each fuzz target runs.
FUZZTIME  ?= 30s
# benchstat wants at least six runs to tell a difference from noise.
COUNT     ?= 6
BENCH     ?= .

# A binary depends on its sources alone: not on the path or the state of the checkout.
GOBUILD = CGO_ENABLED=0 go build -trimpath -buildvcs=false -ldflags='-s -w'

# What runs on AWS: the agents on machines, and the Lambda functions, each as a zip.
ARCHS   = amd64 arm64
AGENTS  = $(ARCHS:%=bin/garo-agent-linux-%)
LAMBDAS = $(foreach name,api worker reaper,$(ARCHS:%=bin/garo-$(name)-linux-%))

# $(call packages,PATTERN) lists the packages with a test file that matches.
packages = $(shell grep -rlE --include='*_test.go' '$(1)' . | sed 's|/[^/]*$$||' | sort -u)

.PHONY: help
help: ## Show this list
	@sed -n 's/^\([a-z][a-z-]*\):.*## \(.*\)/\1 \2/p' $(MAKEFILE_LIST) | \
		while read -r target text; do printf '  make %-9s %s\n' "$$target" "$$text"; done

.PHONY: demo
demo: bin/garo ## Tell one story of runners on this machine, and check its promises
	bin/garo demo

.PHONY: run
run: bin/garo ## Run the whole of GARO on this machine, until interrupted
	bin/garo local

.PHONY: build
build: bin/garo $(LAMBDAS:%=%.zip) ## Build the CLI, the agents and the zips of the Lambda functions into bin/

# Go knows better than make what is up to date.
.PHONY: bin/garo $(AGENTS) $(LAMBDAS) $(LAMBDAS:%=%.zip)
bin/garo:
	$(GOBUILD) -o $@ ./cmd/garo
# The tag leaves out a protocol of Lambda's first Go runtime, which is 3 MB.
$(AGENTS) $(LAMBDAS):
	GOOS=linux GOARCH=$(lastword $(subst -, ,$@)) $(GOBUILD) -tags lambda.norpc -o $@ ./cmd/$(firstword $(subst -linux-, ,$(@F)))
# One that is too large fails.
$(LAMBDAS:%=%.zip): %.zip: % $(AGENTS)
	@go run ./internal/lambda/bundle/writezip $^

.PHONY: reproduce
reproduce: build ## Build the zips again from a copy of the sources, and compare: the bytes must be the same
	@set -e; copy=$$(mktemp -d); trap 'rm -rf "$$copy"' EXIT; \
		tar -cf - --exclude=./bin --exclude=./.git . | tar -xf - -C "$$copy"; \
		$(MAKE) --no-print-directory -C "$$copy" $(LAMBDAS:%=%.zip); \
		for zip in $(LAMBDAS:%=%.zip); do cmp "$$zip" "$$copy/$$zip"; done; \
		sha256sum $(LAMBDAS:%=%.zip)

# What people read: documents, and code with its comments and messages. What is in
# testdata was mostly written elsewhere.
PROSE = git ls-files '*.md' '*.go' '*.tf' '*.yml' '*.yaml' '*.js' '*.sh' '*.html' Makefile | grep -vE '(^|/)testdata/'
# The spelling is British, but for names that others gave: GitHub's organizations,
# artifacts and status texts, the colours of CSS and of terminals, methods of Go, and
# words that AWS and the runner program print so.
FOREIGN = organization organizations artifact artifacts color center behavior \
	unauthorized signaled globalization normalize fulfill fulfillment \
	recognized occured occurr
comma = ,
space = $(subst ,, )

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
		echo shellcheck; $(TOOL) shfmt -f . | xargs shellcheck $(wildcard internal/agent/bootstrap/testdata/*.golden); \
	else \
		echo 'shellcheck is not installed: shell scripts are checked for form alone'; \
	fi
	$(TOOL) actionlint $(wildcard .github/workflows/*.yml .github/workflows/examples/*.yml)
	@if command -v "$$(go env CC)" >/dev/null; then \
		echo vale; $(PROSE) | xargs $(TOOL) vale --output=line; \
	else \
		echo 'no C compiler, which vale is built with: words are not checked'; \
	fi
	$(PROSE) | xargs $(TOOL) misspell -error -locale UK -i $(subst $(space),$(comma),$(strip $(FOREIGN)))
	go test -run '^TestRepository$$/(Links|Pages|CodeInDocuments|DocumentsName)' ./internal/test/repotest

.PHONY: test
test: ## Run all tests, in random order and with the race detector, and list what was left out
	@mkdir -p bin && go build -o bin/testsummary ./internal/test/repotest/testsummary
	@go test -json $(strip $(RACE) -shuffle=on -timeout=$(TIMEOUT) $(TESTFLAGS)) ./... | bin/testsummary

.PHONY: terraform
terraform: ## Check the Terraform modules: format, validity, tests, tflint, checkov
	terraform/check

.PHONY: image-roots
image-roots: ## Make images of bare Debian and Ubuntu by install.sh, and boot machines of them; needs root and debootstrap
	go test -count=1 -v -timeout 40m -run '^TestImageIsInstalledAndBoots$$' ./internal/test/machinetest -args -ubuntu

.PHONY: pictures
pictures: ## Write the screenshots of the page and the recording of garo watch again into docs/images; needs Chromium
	go test -count=1 -run '^TestEveryViewShowsTheHistory$$|^TestViewsFit' ./internal/test/pagetest -args -pictures $(CURDIR)/docs/images
	go test -count=1 -run '^TestWatchDrawsInPlace$$' ./cmd/garo -args -pictures $(CURDIR)/docs/images

# Random calls of each operation, with each of three tokens.
EXAMPLES ?= 50

.PHONY: schemathesis
schemathesis: ## Have Schemathesis look for answers that are not in the contract (EXAMPLES=50; SEED=n plays one run again)
	go test -count=1 -v -timeout 2h ./internal/test/contracttest -args -whole -examples $(EXAMPLES) -seed $(or $(SEED),$(shell date +%s))

.PHONY: cover
cover: ## Show how much of each package all tests together reach
	@mkdir -p bin
	go test -shuffle=on -timeout=$(TIMEOUT) -coverpkg=./... -coverprofile=bin/cover.out ./... >bin/cover.log || { cat bin/cover.log; exit 1; }
	go tool cover -func=bin/cover.out

.PHONY: golden
golden: ## Write the golden files again; read their diff before you commit it
	go test $(or $(call packages,flag[.]Bool.*"update"),$(error no package has golden files)) -run Golden -count=1 -args -update

.PHONY: bench
bench: ## Run the benchmarks in benchstat's form (BENCH=regexp, COUNT=6)
	go test -run '^$$' -bench '$(BENCH)' -benchmem -count=$(COUNT) $(or $(call packages,^func Benchmark),$(error no package has benchmarks))

# What the load test asks of garo local, and how often it is killed meanwhile. Both are more
# than terraform/http.tf lets in: 50 starts and 300 polls a second.
DURATION ?= 10m
RATE     ?= 60
POLLERS  ?= 1000
KILLS    ?= 5

.PHONY: load
load: ## Put garo local under more load than its throttles let in, kill it meanwhile, and look for all that was asked for (DURATION=10m RATE=60 POLLERS=1000 KILLS=5)
	go test -count=1 -v -timeout 2h -run '^TestLoadLosesNothing$$' ./internal/local -args -load $(DURATION) -rate $(RATE) -pollers $(POLLERS) -loadkills $(KILLS)

# How many workflow jobs the burst has.
BURST ?= 1000

.PHONY: burst
burst: ## Queue workflow jobs in garo local within ten seconds of virtual time, and look for the machine of each (BURST=1000)
	go test -count=1 -v -timeout 1h -run '^TestEachJobOfABurstHasOneMachine$$' ./internal/local -args -burst $(BURST)

.PHONY: fuzz
fuzz: ## Run every fuzz target for FUZZTIME (30s), one after another
	@set -e; for package in $(or $(call packages,^func Fuzz),$(error no package has fuzz targets)); do \
		targets=$$(go test -list '^Fuzz' "$$package"); \
		for target in $$(printf '%s\n' "$$targets" | grep '^Fuzz'); do \
			echo "$$package $$target"; \
			go test -run '^$$' -fuzz "^$$target\$$" -fuzztime $(FUZZTIME) "$$package"; \
		done; \
	done

# How many worlds, and the seed of the first; with SEED, that one alone and its story.
SEEDS      ?= 10000
SEED_START ?= 1
SEED       ?=

.PHONY: bin/sim
bin/sim:
	@go test -c -o $@ ./internal/sim

.PHONY: sim sim-long
sim: bin/sim ## Play random worlds until a promise breaks (SEEDS=10000 SEED_START=1; SEED=n tells the story of one)
	@bin/sim -test.run '^TestSeeds$$' -test.timeout 24h $(if $(SEED),-start $(SEED) -seeds 1 -twice 1 -story,-start $(SEED_START) -seeds $(SEEDS) -figures)
sim-long: ## The same with 100,000 seeds
	@$(MAKE) --no-print-directory sim SEEDS=100000

.PHONY: sim-exhaustive
sim-exhaustive: ## Go through every order of events in small scopes, and print the states
	go test -count=1 -v -timeout=30m -run '^TestExhaustive$$' ./internal/sim -exhaustive

.PHONY: sim-crowd
sim-crowd: ## Have an account ask for a machine beside a thousand of another of the same App
	go test -count=1 -v -run '^TestAccountsOfOneAppAreNotBehindEachOther$$' ./internal/sim -crowd 1000

# Bugs are planted in copies that only the compiler reads.
.PHONY: sim-planted sim-planted-long
sim-planted: ## Plant bugs one at a time, and count the random seeds that it takes to catch each
	go run ./internal/sim/planted -seeds 2000
sim-planted-long: ## The same with 20,000 seeds for each bug
	go run ./internal/sim/planted -seeds 20000

# The version to be released, such as v1.2.3. Empty: none yet, so that nothing is pinned to it.
VERSION ?=

# goreleaser takes minutes to build, and is a tool of releases alone.
.PHONY: release-check
release-check: ## Build all that a release has into dist/, and publish nothing; VERSION=v1.2.3 checks changelog and pins; needs goreleaser
	$(if $(VERSION),@grep -qE '^## $(subst .,\.,$(VERSION))( |$$)' CHANGELOG.md || { echo 'CHANGELOG.md has no heading ## $(VERSION): write it'; exit 1; })
	$(if $(VERSION),client/action/pin.sh $(VERSION) && git diff --exit-code client/action/node/release.json)
	@command -v goreleaser >/dev/null || { echo 'goreleaser is not installed: go install github.com/goreleaser/goreleaser/v2@v2.15.1'; exit 1; }
	goreleaser check
	goreleaser release --snapshot --clean --skip=sbom

.PHONY: clean
clean: ## Remove what make built
	rm -rf bin dist
