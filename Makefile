# iscsimp: what CI and people run. Everything here works on a bare Debian with
# Go; what is missing is installed by `make deps` (needs root).

SHELL       := /bin/bash
.SHELLFLAGS := -o pipefail -ec

GO      ?= go
TOOLS   := $(GO) tool -modfile=$(CURDIR)/tools/go.mod
PKGS    := ./...
FUZZ    ?= 50000x

.PHONY: all build demo test test-unit test-race test-invariants test-real target-check lint fmt vet model model-short fuzz bench bench-paths sim hostile schedules lab lab-test lab-short lab-compare deps clean cross FORCE

all: build

build: bin/iscsimp

bin/iscsimp: FORCE
	CGO_ENABLED=0 $(GO) build -trimpath -o $@ ./cmd/iscsimp

FORCE:

# The main job: discover, log in everywhere, export, load, one path slow, one cut.
demo:
	cd test && $(GO) run ./cmd/demo

# All tests: the project's own, then those against targets and NBD clients
# nobody here wrote.
test: vet test-race test-invariants model-short target-check test-real lab-short fuzz

test-unit:
	$(GO) test -shuffle=on $(PKGS)

test-race:
	$(GO) test -race -shuffle=on $(PKGS)

# Released buffers are scribbled over, and impossible states panic.
test-invariants:
	$(GO) test -tags invariants -shuffle=on ./nbd ./mpio ./session/... ./initiator

# Real targets (gotgt, tgtd) and real NBD clients (fio, nbdinfo, nbdcopy, qemu-io).
test-real: deps
	cd test && $(GO) vet ./... && $(GO) test -race -shuffle=on -p 1 -timeout 15m ./...

# Debian's iscsi-test-cu against our own target, so that it cannot lie.
target-check: deps
	iscsitest/target-check.sh

# The model of the write fence, by spin: the invariant holds, and is found
# violated in each mutant. model-short has smaller bounds and fewer mutants.
model: deps
	mpio/model/check.sh
model-short: deps
	mpio/model/check.sh short

# Every fuzz target for $(FUZZ): so many executions, or a time.
fuzz:
	./tools/fuzz.sh $(FUZZ)

vet:
	$(GO) vet $(PKGS)
	@out=$$(gofmt -l .); [ -z "$$out" ] || { echo "not gofmt'd: $$out"; exit 1; }

# The full linter; slow to build the first time.
lint:
	$(TOOLS) golangci-lint run $(PKGS)
	cd test && $(TOOLS) golangci-lint run $(PKGS)

fmt:
	gofmt -w .

# A short comparison with qemu-nbd + libiscsi on the same tgtd.
bench: deps build
	bench/run.sh
# Policies, hedges and marginal paths in real time, over lines that delay, narrow, stall and break.
ROUNDS ?= 1
bench-paths:
	cd test && $(GO) run ./cmd/pathbench -n $(ROUNDS)

# Sessions against a target that sends well-framed nonsense. FOR=1h for a campaign.
FOR ?= 1m
hostile:
	cd test && $(GO) run ./cmd/hostile -for $(FOR)

# Random schedules of faults in virtual time, with the write fence and without, and with losses of power. N=10000 for a campaign.
N ?= 1000
schedules:
	cd test && SCHEDULES=$(N) $(GO) test -v -count=1 -timeout 4h -run 'TestFence|TestFlush' ./schedules | grep -v '^ *\(---\|===\)'

# Every policy through every scenario, in virtual time: what each would do with
# slow, far, stalling and flapping paths. docs/policies.md has the results.
# SEEDS=3 takes the median of three runs.
SCENARIO ?= all
SEEDS ?= 1
sim:
	$(GO) run ./mpio/sim -scenario $(SCENARIO) -seeds $(SEEDS)

# The emulated VM: build it, and run iscsimp there against Linux's LIO.
lab:
	lab/build.sh
lab-test: lab
	lab/check.sh
# A few of the lab's tests; on a machine that cannot have it, a loud word.
lab-short:
	lab/check.sh --short --or-skip
# iscsimp beside open-iscsi and dm-multipath; takes an hour of processor time.
lab-compare: lab
	lab/compare.sh

# Other systems and byte orders: does it compile?
cross:
	for t in linux/amd64 linux/arm64 linux/s390x linux/386 darwin/arm64 windows/amd64 freebsd/amd64; do \
		echo $$t; GOOS=$${t%/*} GOARCH=$${t#*/} CGO_ENABLED=0 $(GO) build ./... || exit 1; done

# Debian packages the tests use.
deps:
	./tools/deps.sh

clean:
	rm -rf bin
