# The targets people and CI use. `make help` lists them.

SHELL       := bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help

MODULE  := github.com/bellhop-dev/bellhop
VERSION ?= $(shell git describe --tags --always --dirty 2>/dev/null || echo devel)
LDFLAGS := -s -w -X $(MODULE)/internal/version.version=$(VERSION)
FUZZTIME ?= 30s
NEMESIS  ?= 20s
SEED     ?= 0
# Packages tested at once: most of their time they wait, for servers to start and faults to be noticed.
PACKAGES ?= 4

# Of the modules beside the root, those that are there.
MODULES := . $(patsubst %/go.mod,%,$(wildcard bench/go.mod examples/*/go.mod))

.PHONY: help
help: ## List the targets
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:[^#]*## /\t/' | expand -t 16

.PHONY: test
test: needs ## Run every test with the race detector; install what they need first
	go test -race -vet=off -p $(PACKAGES) ./...
	bash scripts/examples.sh
	@for m in $(filter bench,$(MODULES)); do echo "$$m: vet and test"; (cd $$m && go vet ./... && go test -race ./...); done

.PHONY: unit
unit: needs ## Run the fast tests only
	go test -race -short ./...

.PHONY: needs
needs:
	@bash scripts/need.sh gcc redis-server rabbitmq-server curl openssl python3 node
	@bash scripts/github-deliveries.sh

.PHONY: faults
faults: needs ## Run the catalogue of faults against stock's figures; NEMESIS=10m, SEED=n replays one; FAULTS='-write ../docs/reliability.md'
	go test -race -v -count=1 -timeout 60m -run '^TestFault' ./faults -nemesis $(NEMESIS) -seed $(SEED) $(FAULTS)

.PHONY: faults-stock
faults-stock: needs ## Record stock asynq's figures in faults/stock.json, some six minutes
	go test -v -count=1 -timeout 30m -parallel 6 -run '^TestRecordStock$$' ./faults -stock

.PHONY: bench
bench: ## Measure bellhop beside stock asynq (10 minutes), write docs/performance.md; BENCH=-river adds River
	cd bench && go run . -write $(BENCH)

.PHONY: bench-short
bench-short: ## The same in 2 minutes, only printed
	cd bench && go run . -short $(BENCH)

.PHONY: microbench
microbench: ## Run the packages' own benchmarks
	go test -run '^$$' -bench . -benchmem ./...

.PHONY: fuzz
fuzz: ## Run each Fuzz target for FUZZTIME (30s)
	@bash scripts/fuzz.sh $(FUZZTIME)

.PHONY: lint
lint: ## Run golangci-lint: rules, import arrows, format
	@lint=$$(bash scripts/tool.sh golangci-lint); $$lint run --allow-parallel-runners ./...

.PHONY: lint-scripts
lint-scripts: ## Run shellcheck and actionlint over what is not Go
	@bash scripts/need.sh shellcheck
	shellcheck .ci/run scripts/*.sh
	@"$$(bash scripts/tool.sh actionlint)" -color

.PHONY: fmt
fmt: ## Format the Go code (gofumpt, imports in groups)
	@"$$(bash scripts/tool.sh golangci-lint)" fmt ./...

.PHONY: tidy-check
tidy-check: ## Fail where go.mod or go.sum is not tidy
	@for m in $(MODULES); do (cd $$m && go mod tidy -diff) || { echo "run 'go mod tidy' in $$m" >&2; exit 1; }; done

.PHONY: vulncheck
vulncheck: ## Look for known vulnerabilities that our code reaches
	@bash scripts/vulncheck.sh || [ $$? -eq 75 ] # 75: skipped

.PHONY: build
build: ## Build the static binaries into bin/
	CGO_ENABLED=0 go build -trimpath -ldflags '$(LDFLAGS)' -o bin/ ./cmd/...

.PHONY: docker
docker: ## Build the image bellhop:VERSION
	docker build --build-arg VERSION=$(VERSION) -t bellhop:$(VERSION) .

.PHONY: check-compose
check-compose: ## Load docker-compose.yml as docker compose would
	@bash scripts/check-compose.sh

.PHONY: clean
clean: ## Remove what was built, downloaded and cached here
	rm -rf bin .cache
