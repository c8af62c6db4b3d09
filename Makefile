# Tollgate. `make help` lists what there is to do.
SHELL       := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help

BIN      := bin/tollgate
TOOLS    := $(CURDIR)/.tools/bin
LINT     := $(TOOLS)/golangci-lint
LINT_VER := v2.15.0
# Packages whose state is shared between goroutines.
RACE     := ./xds ./xds/agent ./xds/store ./xds/trust ./xds/push/... ./xds/ledger/... ./xds/discovery/... ./xds/files/... ./extauthz/... ./ratelimit/... ./services/... ./internal/...

.PHONY: help build run test unit race e2e fuzz fuzz-minute bench bench-xds lint fmt generate tools clean

help: ## list the targets
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 12

build: ## build bin/tollgate
	@go build -o $(BIN) ./cmd/tollgate

run: build ## the whole gateway with demo services on this machine
	@./$(BIN) envoy install --if-missing
	@exec ./$(BIN) run --demo -f configs/gateway.yaml

test: build tools ## every test: unit, golden, conformance, e2e (real Envoy, real Redis)
	@./$(BIN) envoy install --if-missing
	@$(MAKE) --no-print-directory unit race e2e

unit: ## all tests but e2e
	go test -timeout 5m $$(go list ./... | grep -v '^tollgate/e2e')

race: ## the packages with shared state under the race detector
	go test -race -timeout 8m $(RACE)

e2e: build ## black box, against the real Envoy and Redis
	TOLLGATE_BIN=$(CURDIR)/$(BIN) go test -timeout 12m -count=1 ./e2e/...

fuzz: build ## ten minutes of all fuzz targets, guided by coverage, and of mutated requests
	@TOLLGATE_BIN=$(CURDIR)/$(BIN) scripts/fuzz 600 guided

fuzz-minute: ## a minute of all fuzz targets, from the committed inputs
	@scripts/fuzz 20

bench: build ## requests/s and CPU per request, as ratios to the bare Envoy
	@./$(BIN) envoy install --if-missing
	TOLLGATE_BIN=$(CURDIR)/$(BIN) go run ./bench

bench-xds: ## one changed endpoint for many proxies: ours and go-control-plane
	go run ./bench/xds -clients 100 -clusters 1000
	go run ./bench/xds -clients 100 -clusters 10000 -resume -rounds 1 -edits 4

lint: $(LINT) ## linters and formatters, no finding
	@$(LINT) run ./...
	@$(LINT) fmt --diff ./...
	@go vet ./...

fmt: $(LINT) ## format everything
	@$(LINT) fmt ./...

generate: ## protobuf, JSON Schema and docs/config.md from their sources
	@scripts/generate

tools: ## what the tests need and a clean machine lacks (redis-server)
	@scripts/tools

$(LINT):
	GOBIN=$(TOOLS) go install github.com/golangci/golangci-lint/v2/cmd/golangci-lint@$(LINT_VER)

clean: ## remove what was built
	@rm -rf bin .tollgate
