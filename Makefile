# Every command of the project. Each target does its own setup.
SHELL := /bin/bash
VENV := .venv
export ANSIBLE_CONFIG := $(CURDIR)/ansible.cfg
# The project's own tools first, whatever the shell has active.
export PATH := $(CURDIR)/$(VENV)/bin:$(PATH)
# `make rehearse ENGINE=sglang`; `make rehearse -e glm_engine=sglang` means the same.
ENGINE ?= $(or $(glm_engine),vllm)
COUNT ?= 2
ARGS ?=

.DEFAULT_GOAL := help
.PHONY: help setup rehearse rehearse-down rehearse-status test lint unit playbooks cores engines integration molecule docs benchmark roll-proof histories intents sources variables engine known gate-runs failed-starts healthy-starts clean

help:  ## Show this list
	@awk -F':.*## ' '/^[a-z-]+:.*## / {printf "  make %-16s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

setup:  ## Create .venv with everything that a controller needs
	@scripts/venv.sh $(VENV) requirements.txt 3.11 3.12 3.13 3.14

setup-dev:
	@scripts/venv.sh $(VENV) requirements-dev.txt 3.11 3.12 3.13 3.14

rehearse: setup  ## Run the main job end to end with no account and no GPU (ENGINE=vllm|sglang COUNT=2 ARGS=...)
	@scripts/install_system_packages.sh
	@python -m simulator up --engines $(ENGINE)
	ansible-playbook deploy_glm51.yml -i rehearsal -e glm_engine=$(ENGINE) -e glm_launch_count=$(COUNT) $(ARGS)

rehearse-status:  ## Show the services and hosts of the rehearsal
	@python -m simulator status

rehearse-down: setup  ## Stop the rehearsal and remove its hosts
	@python -m simulator down

test: setup-dev  ## Run everything: lint, unit, playbooks, engines, integration and molecule
	@scripts/test.sh all

lint: setup-dev  ## Run the linters only
	@scripts/test.sh lint

unit: setup-dev  ## Run the pure tests, in less than a minute (ARGS="-k lockfile" selects some, also in the next three)
	@scripts/test.sh unit $(ARGS)

playbooks: setup-dev  ## Run the tests that run ansible-playbook, a browser or servers on this machine
	@scripts/test.sh playbooks $(ARGS)

cores: setup-dev  ## Run all that touches Ansible on the second ansible-core (`make test` runs a test of each file there)
	@scripts/test.sh cores $(ARGS)

engines: setup-dev  ## Parse every planned command line with the engines' own parsers
	@scripts/test.sh engines $(ARGS)

integration: setup-dev  ## Run the integration tests (real hosts, real engines)
	@scripts/test.sh integration $(ARGS)

molecule: setup-dev  ## Run the molecule scenarios
	@scripts/test.sh molecule

docs: setup-dev  ## Build the documentation site in build/site
	@scripts/docs_site.sh

benchmark: setup-dev  ## Run the benchmarks and print them as ratios
	@scripts/test.sh benchmark

roll-proof: setup-dev  ## Prove on three rehearsed hosts that a fleet is one endpoint (ARGS="--only kill-host --streams 6")
	@.venv/bin/python tests/benchmark/roll_under_load.py $(ARGS)

histories: setup-dev  ## Run 200 random histories of a fleet against the API simulator
	@GLM_HISTORIES=200 .venv/bin/pytest -q tests/playbooks/modules/test_fleet_histories.py $(ARGS)

intents: setup-dev  ## Plan 100,000 random intents: no answer but a plan or a refusal (ARGS="--count 1000 --seed 7")
	@.venv/bin/python tests/benchmark/plan_intents.py $(ARGS)

gate-runs: setup-dev  ## Run the gate 100 times on each real engine and count false alarms (ARGS="--engine vllm --runs 10")
	@.venv/bin/python tests/benchmark/gate_runs.py --runs 100 $(ARGS)

failed-starts: setup-dev  ## Make whole logs of failed starts with the real engines (ARGS="vllm tensor-missing" makes one)
	@PYTHONPATH=. python tests/integration/failed_starts/make.py $(ARGS)

healthy-starts: setup-dev  ## Make whole logs and metrics of starts that succeed, for what verify reads in them
	@PYTHONPATH=. python tests/integration/failed_starts/healthy.py $(ARGS)

engine: setup-dev  ## Add an engine version and show what it changes for the recipes: make engine VERSION=vllm:0.34.0
	@python tools/new_engine.py $(VERSION)

known: setup-dev  ## Add what a verified fleet's lock file has to the catalogue (LOCK=glm.lock.yml SOURCE="who, where, when")
	@python tools/known.py --source "$(SOURCE)" $(LOCK)

sources: setup-dev  ## Regenerate docs/sources.md and its golden files (then review the difference)
	@python tools/sources_page.py

variables: setup-dev  ## Regenerate docs/variables.md, defaults and argument_specs from catalog/variables.yml
	@python tools/variables_page.py

clean: rehearse-down  ## Remove the virtual environments and the rehearsal's state
	@rm -rf .venv .venv-* .rehearsal .mypy_cache .ruff_cache .pytest_cache
