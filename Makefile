# Ward: make help lists the targets.
SHELL := bash
.SHELLFLAGS := -euo pipefail -c
.DELETE_ON_ERROR:
MAKEFLAGS += --no-builtin-rules

STATICCHECK := honnef.co/go/tools/cmd/staticcheck@v0.8.1
# How long each fuzz target runs, and how much longer a campaign is.
FUZZTIME ?= 30s
# How long one package of a campaign may take.
BUDGET ?= 60m

# The official Cedar engine, which tests compare with.
OFFICIAL := policies/testdata/official

.PHONY: run test check bench fuzz campaign help clean

run: bin/ward ## build Ward and show it: the demo, then a server to try
	bin/ward demo $(DEMOFLAGS)

bin/ward: FORCE
	go build -trimpath -o bin/ward ./cmd/ward

test: $(OFFICIAL)/node_modules/.package-lock.json ## the tests, in under 10 minutes
	WARD_OFFICIAL=1 go test -timeout 20m ./...

$(OFFICIAL)/node_modules/.package-lock.json: $(OFFICIAL)/package-lock.json
	@command -v node >/dev/null && command -v npm >/dev/null || { echo "the tests need Node.js 20 or later and npm, for the official Cedar engine: install them"; exit 1; }
	cd $(OFFICIAL) && npm ci --ignore-scripts --no-audit --no-fund
	@touch $@

check: ## vet, staticcheck, formatting, races, generated files unchanged
	@test -z "$$(gofmt -l $$(git ls-files '*.go'))" || { echo "not formatted:"; gofmt -l $$(git ls-files '*.go'); exit 1; }
	go vet ./...
	go mod verify
	go mod tidy -diff
	go run $(STATICCHECK) ./...
	go test -short -race -timeout 20m ./hierarchy/... ./pdp/... ./adapters/...
	@git diff --exit-code --stat -- . || { echo "the checks changed files"; exit 1; }

bench: ## the figures, as ratios of one run
	go test -run '^$$' -bench . -benchmem -timeout 30m ./policies ./hierarchy ./pdp/audit ./pdp ./cli

fuzz: ## every fuzz target, FUZZTIME each
	@for pkg in $$(go list ./...); do \
	  for target in $$(go test -list '^Fuzz' $$pkg | grep ^Fuzz || true); do \
	    echo "== $$pkg $$target"; \
	    go test -run '^$$' -fuzz "^$$target$$" -fuzztime $(FUZZTIME) $$pkg; \
	  done; \
	done

campaign: $(OFFICIAL)/node_modules/.package-lock.json ## the long counts: a million tenancy trials, a million import questions, …
	WARD_OFFICIAL=1 WARD_CAMPAIGN=1 go test -count=1 -v -timeout $(BUDGET) ./... | grep -vE '^=== |no test files'

clean: ## remove what was built
	rm -rf bin $(OFFICIAL)/node_modules

help: ## this list
	@grep -hE '^[a-z]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 12

.PHONY: FORCE
FORCE:
