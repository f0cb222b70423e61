# Each target sets up what it needs. `make run` is the main job, `make test` the tests.
#
#   make run SET="select.beta=0.5 evaluate.seed=7"    other parameters than params.yaml's
#   make test ARGS="-k contrast -x"                   anything more for pytest
#   make up ARGS=--detach                             servers in the background; make status, make down
#   make setup PYTHON=python3.12                      another interpreter (3.11, 3.12, 3.13)

.PHONY: setup setup-vllm run up down status test test-slow test-all test-faults test-fuzz test-browser test-gpu bench microworld study \
	check audit docs dvc.yaml lock clean
.NOTPARALLEL:

# Nothing here reports to anyone.
export PREFECT_SERVER_ANALYTICS_ENABLED = false
export PREFECT_SERVER_UI_V2_ENABLED = false
export PREFECT_SERVER_UI_SHOW_PROMOTIONAL_CONTENT = false
export MLFLOW_DISABLE_TELEMETRY = true
export DVC_NO_ANALYTICS = 1
export HF_HUB_DISABLE_TELEMETRY = 1
export DO_NOT_TRACK = true

export PYTHON

setup:
	@sh scripts/setup.sh

# vLLM in an environment of its own, for compute.engine=vllm (gigabytes).
setup-vllm: setup
	@sh scripts/setup-vllm.sh

run: setup
	@.venv/bin/lightreasoner run $(foreach pair,$(SET),--set $(pair)) $(ARGS)

up: setup
	@.venv/bin/lightreasoner up $(ARGS)

down status: setup
	@.venv/bin/lightreasoner $@

# Three processes of one thread each, also on two cores: some of the time is waiting. A file's tests
# stay together (tests/conftest.py).
PYTEST = .venv/bin/python -m pytest -n 3 --durations=20
test test-slow test-all test-faults test-fuzz: export OMP_NUM_THREADS = 1
test: setup
	$(PYTEST) $(ARGS)

# Where Chromium is, its tests are among these.
test-slow: setup
	$(PYTEST) -m "(slow or browser) and not nightly and not gpu" $(ARGS)

# Long: also what kills runs and servers at many moments.
test-all: setup
	$(PYTEST) -m "not gpu" $(ARGS)

# Kills, damage and full disks, each followed by the same work again; a table at the end, also in
# build/faults.md. Other moments: make test-faults FAULTS_SEED=7
test-faults: setup
	$(PYTEST) -n 2 -m "not gpu and not browser" tests/faults $(ARGS)

# Minutes: thousands of seeded cases of bad input, of which `make test` tries a share
# (FUZZ_SEED=N for others; tests/fuzz/fuzzing.py).
test-fuzz: export FUZZ_TIMES ?= 25
test-fuzz: setup
	$(PYTEST) tests/fuzz $(ARGS)

# The pages in Chromium (Debian: apt-get install chromium); pictures of them in build/screenshots/.
test-browser: setup
	.venv/bin/python -m pytest -m browser $(ARGS)

# On a machine with a CUDA device: the same results as on a CPU, and how often the host waits.
test-gpu: setup
	.venv/bin/python -m pytest -m gpu $(ARGS)

# Speed on this machine, to .lightreasoner/bench/.
# BENCH="--set models.expert=DIR --set models.amateur=DIR" for another pair.
bench: setup
	.venv/bin/python -m benchmarks.bench sampling $(BENCH)
	.venv/bin/python -m benchmarks.bench training $(BENCH)
	.venv/bin/python -m benchmarks.bench grading
	.venv/bin/python -m benchmarks.bench together

# The embedded expert and amateur, trained from scratch: make microworld OUT=my-models
microworld: setup
	.venv/bin/python -m recipes.microworld train --out $(OUT) $(ARGS)

# The paper's claims in the micro-world, half an hour of two cores: results/study.html. It goes on where it
# was ended.
study: setup
	.venv/bin/python -m recipes.study run $(ARGS)

check: setup
	.venv/bin/ruff check .
	.venv/bin/ruff format --check .
	.venv/bin/mypy
	.venv/bin/lint-imports

# What bandit looks for, by ruff (also in `make check`), and known vulnerabilities of the locks.
audit: setup
	.venv/bin/ruff check .
	@sh scripts/audit.sh

# The documentation as a site, in build/site/; a warning is an error.
docs: setup
	NO_MKDOCS_2_WARNING=1 .venv/bin/python -m mkdocs build --quiet --strict

# After a change of the stages or of what they import.
dvc.yaml: setup
	.venv/bin/python -m flows.dvc.dvcfile > $@.new && mv $@.new $@

# Resolves pyproject.toml anew, for Python 3.11 to 3.13 (needs uv on PATH; commit the result).
# To move to newer versions: make lock ARGS=--upgrade
LOCK = uv pip compile --quiet --universal --python-version 3.11 --fork-strategy fewest \
	--generate-hashes --no-emit-index-url --no-emit-find-links \
	--custom-compile-command "make lock"
lock:
	$(LOCK) $(ARGS) pyproject.toml --extra pipeline --extra dev --extra docs --extra ray --no-emit-package torch -o requirements.lock
	$(LOCK) $(ARGS) requirements-dvc.in -o requirements-dvc.lock

# Removes the environments and the tools' caches; results (.lightreasoner/) stay.
clean:
	rm -rf .venv .venv-dvc .venv-vllm .venv-audit .mypy_cache .ruff_cache .pytest_cache .import_linter_cache .hypothesis build *.egg-info
