# Debian 12, git and make are all that must be there. As root or with sudo; no target calls sudo.

.DEFAULT_GOAL := help
SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DELETE_ON_ERROR:
MAKEFLAGS += --no-builtin-rules --no-print-directory

# What is installed when it is missing:
#   python3-venv     .venv                  python3-bpfcc            the compiler of bpf/
#   linux-libc-dev   <linux/*.h> for bpf/   gcc libc6-dev            the test of abi.h against abi.py, make bench
#   clang-format     make check             iproute2 iputils-ping    the lab and the tests in it
#   iperf3           make demo              dnsmasq-base isc-dhcp-client   the tests of leases
#   systemd          systemd-analyze, the test of packaging/systemd
#   openssl          certificates of tests/etcd and tests/cluster
PACKAGES := python3-venv python3-bpfcc linux-libc-dev gcc libc6-dev clang-format iproute2 iputils-ping iperf3 \
    dnsmasq-base isc-dhcp-client systemd openssl

# etcd, of Debian's etcd-server: unpacked and not installed, for an installed one starts a service at once.
ETCD := .venv/etcd/usr/bin/etcd

# What tests/vm needs besides:
#   qemu-system-x86   guests                       mmdebstrap e2fsprogs   their disk
#   busybox-static cpio zstd kmod               their initramfs
VM_PACKAGES := qemu-system-x86 busybox-static mmdebstrap e2fsprogs cpio zstd kmod

PY := .venv/bin/python
# The tree's path is part of the name: a copied tree sets itself up anew instead of running the old one's code.
STAMPS := .venv/.stamps$(subst /,-,$(CURDIR))
SOURCES := agent cli tests packaging
BYTECODE := agent/vxagent/bytecode
BYTECODE_FROM := $(shell find bpf -name '*.[ch]') $(wildcard agent/vxagent/datapath/compiler.py agent/vxagent/datapath/source.py)

# Caches of the checkers: for each user apart, and outside a tree that the user may not write to.
CACHE := $(shell if [ -w .venv ] || [ ! -e .venv -a -w . ]; then echo .venv/.cache; else echo $${TMPDIR:-/tmp}/vxagent-cache; fi)-$(shell id -u)
export RUFF_CACHE_DIR := $(CACHE)/ruff
export MYPY_CACHE_DIR := $(CACHE)/mypy
export HYPOTHESIS_STORAGE_DIRECTORY := $(CACHE)/hypothesis
PYTEST := $(PY) -m pytest -o cache_dir=$(abspath $(CACHE))/pytest

# Two processes: much of a test is waiting. A file stays in one of them, and tests marked `alone` run beside no other.
WORKERS := 2
BESIDE := -n $(WORKERS)

define need_root
@[ "$$(id -u)" = 0 ] || { echo "make $@ needs root: run it as root or with sudo" >&2; exit 1; }
endef

.PHONY: help
help: ## List the targets (the default)
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-13s %s\n", $$1, $$2}' $(firstword $(MAKEFILE_LIST))

# -- Set-up ------------------------------------------------------------------------------------------------------------

.PHONY: setup
setup: build $(ETCD) ## Install what is missing: Debian packages, .venv, vxagent itself, bytecode; safe to run again

.PHONY: packages vm-packages
packages: WANTED := $(PACKAGES)
vm-packages: WANTED := $(VM_PACKAGES)
packages vm-packages:
	@missing=$$(comm -13 \
	    <(dpkg-query -W -f '$${db:Status-Abbrev}$${Package}\n' $(WANTED) 2>/dev/null | sed -n 's/^ii *//p' | sort -u) \
	    <(printf '%s\n' $(WANTED) | sort) | xargs); \
	[ -n "$$missing" ] || exit 0; \
	[ "$$(id -u)" = 0 ] || { echo "make: missing Debian packages: $$missing; run \`make setup\` as root" >&2; exit 1; }; \
	echo "Installing $$missing"; \
	export DEBIAN_FRONTEND=noninteractive; \
	apt-get update -qq && apt-get install -y -qq --no-install-recommends $$missing >/dev/null

$(PY): | packages
	@echo "Making .venv"
	@/usr/bin/python3 -m venv .venv

# pip's words go to a log: they may name an index that is nobody else's business.
$(STAMPS)/python: pyproject.toml | $(PY)
	@echo "Installing Python packages into .venv"
	@mkdir -p $(@D)
	@pip() { $(PY) -m pip install --disable-pip-version-check --no-input --quiet "$$@" >>.venv/pip.log 2>&1; }; \
	: >.venv/pip.log; \
	pip hatchling editables && pip --no-build-isolation --editable '.[dev]' \
	    || { echo "make: pip failed, .venv/pip.log says why" >&2; exit 1; }
	@touch $@

$(ETCD): | $(PY)
	@echo "Unpacking etcd-server into .venv/etcd"
	@rm -rf .venv/etcd && mkdir .venv/etcd && cd .venv/etcd; \
	download() { apt-get -qq -o APT::Sandbox::User=root download etcd-server >/dev/null; }; \
	download 2>/dev/null || { apt-get -qq update && download; } \
	    || { echo "make: no etcd-server from Debian; run \`make setup\` as root" >&2; exit 1; }; \
	dpkg-deb -x etcd-server_*.deb . && rm etcd-server_*.deb && touch usr/bin/etcd

$(STAMPS)/bytecode: $(BYTECODE_FROM) $(if $(wildcard $(BYTECODE)/*),,no-bytecode) | $(STAMPS)/python
	@echo "Compiling bpf/"
	@$(PY) -m vxagent.datapath.source build
	@touch $@

.PHONY: no-bytecode
no-bytecode:

.PHONY: vm-setup
vm-setup: setup vm-packages ## Install what tests/vm needs besides: QEMU, and what guests are built with

.PHONY: build
build: $(STAMPS)/bytecode ## Compile bpf/ into the bytecode that the agent and the wheel carry

.PHONY: install
install: setup ## Link .venv/bin/vxagent into /usr/local/bin
	$(need_root)
	@ln -sfn $(CURDIR)/.venv/bin/vxagent /usr/local/bin/vxagent
	@echo "/usr/local/bin/vxagent -> $(CURDIR)/.venv/bin/vxagent"

.PHONY: uninstall
uninstall: ## Remove that link
	$(need_root)
	@if [ "$$(readlink /usr/local/bin/vxagent)" = $(CURDIR)/.venv/bin/vxagent ]; then rm /usr/local/bin/vxagent; \
	else echo "/usr/local/bin/vxagent is not this tree's; left as it is"; fi

.PHONY: wheel
wheel: setup ## Build dist/vxagent-*.whl, bytecode included
	@$(PY) -m pip wheel --disable-pip-version-check --quiet --no-deps --no-build-isolation --wheel-dir dist .
	@ls dist/*.whl

# -- Checks and tests --------------------------------------------------------------------------------------------------

C_FILES := $(shell find bpf -maxdepth 1 -name '*.[ch]') $(wildcard agent/vxagent/bench/c/*.[ch])

CHECKS := check-format check-lint check-c check-types check-imports check-unit

.PHONY: check $(CHECKS)
check: setup ## Format, lint, types, import contracts and unit tests; without root, under a minute
	@$(MAKE) --jobs $$(nproc) --output-sync=target $(CHECKS)

check-format:
	@$(PY) -m ruff format --check --quiet $(SOURCES) || { echo "make: run \`make format\`" >&2; exit 1; }

check-lint:
	@$(PY) -m ruff check --quiet $(SOURCES)

check-c:
	@clang-format --dry-run -Werror --style=file $(C_FILES)

check-types:
	@$(PY) -m mypy --no-error-summary

check-imports:
	@said=$$($(PY) .venv/bin/lint-imports --no-logo --cache-dir $(CACHE)/import-linter) || { echo "$$said"; exit 1; }

check-unit:
	@$(PYTEST) -q $(BESIDE) --dist load tests/unit

.PHONY: format
format: setup ## Format Python and C, and mend what the linter can
	@$(PY) -m ruff check --quiet --fix-only $(SOURCES)
	@$(PY) -m ruff format --quiet $(SOURCES)
	@clang-format -i --style=file $(C_FILES)

.PHONY: test
test: ## make check, then every test there is, on real devices; root
	$(need_root)
	@$(MAKE) check
	@$(PYTEST) $(BESIDE) --dist loadfile --no-loadscope-reorder tests/etcd tests/bpf tests/netns tests/cluster

.PHONY: test-vm
test-vm: ## Every test with real VMs, in guests by QEMU; root
	$(need_root)
	@$(MAKE) vm-setup
	@$(PYTEST) tests/vm

.PHONY: demo
demo: ## The switch at work in a lab of network namespaces; under a minute, leaves nothing behind; root
	$(need_root)
	@$(MAKE) setup
	@exec $(PY) -m vxagent.lab.demo

.PHONY: demo-cluster
demo-cluster: ## Three hosts with one engine and a live migration, in such a lab; under a minute; root
	$(need_root)
	@$(MAKE) setup
	@exec $(PY) -m vxagent.lab.demo_cluster

.PHONY: bench
bench: ## Measure the switch against the Linux bridge, in under five minutes; OPTIONS="--quick …"; root
	$(need_root)
	@$(MAKE) setup
	@exec .venv/bin/vxagent bench $(OPTIONS)

.PHONY: faults
faults: ## Kill, stop and starve an agent under 100,000 frames/s and count what is lost, in some twenty minutes; OPTIONS="--quick …"; root
	$(need_root)
	@$(MAKE) setup
	@other=$$(mktemp -d); trap 'rm -rf "$$other"' EXIT; \
	builds=$$(PYTHONPATH=tests $(PY) -m support.builds "$$other"); \
	.venv/bin/vxagent bench --faults $$builds $(OPTIONS)

HOSTS := 1000
PORTS := 100

.PHONY: scale scale-cluster
scale: ## Measure one host (start, attach, 1,000 ports, long lists), and then scale-cluster; root
	$(need_root)
	@$(MAKE) setup
	@$(PY) tests/scale/measure.py
	@$(MAKE) scale-cluster

scale-cluster: ## Measure HOSTS=1000 simulated hosts × PORTS=100 at one etcd, half an hour; OPTIONS="--rates 10 100 …"; root
	$(need_root)
	@$(MAKE) setup
	@exec $(PY) tests/scale/cluster.py --hosts $(HOSTS) --ports $(PORTS) $(OPTIONS)

.PHONY: cost
cost: ## Measure what a frame pays for each feature; AGAINST=bpf-of-another-tree compares with it; root
	$(need_root)
	@$(MAKE) setup
	@AGAINST=$(AGAINST) exec $(PY) tests/scale/cost.py

.PHONY: rates
rates: ## Measure how exactly rates are kept, by UDP and TCP; four minutes; root
	$(need_root)
	@$(MAKE) setup
	@exec $(PY) tests/scale/rates.py

.PHONY: events
events: ## Measure what a flood of events costs the agent, and whether others' are told; a minute; root
	$(need_root)
	@$(MAKE) setup
	@exec $(PY) tests/scale/events.py

.PHONY: engine
engine: setup ## Measure what it costs hosts to agree, with three members of etcd on loopback; half a minute
	@PYTHONPATH=tests exec $(PY) tests/etcd/measure.py

TIMES := 100

.PHONY: migrations
migrations: ## TIMES=100 live migrations under 30,000 frames/s: what is lost, and how long it takes; root
	$(need_root)
	@$(MAKE) setup
	@PYTHONPATH=tests exec $(PY) tests/cluster/measure.py $(TIMES)

FRAMES := 1000000
SEED :=

.PHONY: fuzz
fuzz: ## Compare the loaded programs with the reference switch: FRAMES=1000000, SEED= to repeat; root
	$(need_root)
	@$(MAKE) setup >&2
	@PYTHONPATH=tests exec $(PY) -m fuzz --frames $(FRAMES) $(if $(SEED),--seed $(SEED))

SECONDS := 1800

.PHONY: soak
soak: ## Random operations under 100,000 frames/s: nothing is lost, nothing grows; SECONDS=1800 long, from SEED=…; root
	$(need_root)
	@$(MAKE) setup
	@PYTHONPATH=tests exec $(PY) -m soak --seconds $(SECONDS) $(if $(SEED),--seed $(SEED))

.PHONY: leaks
leaks: SECONDS := 600
leaks: ## Tenants with traffic while all that can change does, SECONDS=600 long, from SEED=…; 100,000 MACs; root
	$(need_root)
	@$(MAKE) setup
	@$(PY) tests/scale/leaks.py $(SECONDS) $(SEED)
	@MACS=100000 $(PYTEST) -q tests/netns/test_attacks.py -k many_macs

.PHONY: upgrade
upgrade: ## Builds that take over from each other under traffic, up and down ten times, and 100 reloads; root
	$(need_root)
	@$(MAKE) setup
	@RELOADS=100 UPGRADES=10 $(PYTEST) -q -o timeout=1200 tests/netns/test_upgrade.py tests/bpf/test_handover.py

.PHONY: deaths
deaths: ## Kill agents after every step of every command and migration, start the next, compare everything; long; root
	$(need_root)
	@$(MAKE) setup
	@VXAGENT_EVERY_DEATH=1 $(PYTEST) -v $(BESIDE) --dist worksteal tests/netns/test_death.py tests/cluster/test_migration_deaths.py

.PHONY: failures
failures: ## The engine is away for a minute, members of it die, hosts are cut off, under streams: no frame is lost; root
	$(need_root)
	@$(MAKE) setup
	@LONG=1 $(PYTEST) -v -o timeout=300 tests/cluster/test_away.py tests/cluster/test_quorum.py tests/cluster/test_silent.py

.PHONY: clean
clean: ## Remove what the other targets made, .venv too
	@rm -rf .venv dist build $(BYTECODE)
	@find $(SOURCES) -name __pycache__ -prune -exec rm -rf {} +
