# `make up` and `make test` do all of their own set-up.
SHELL := /bin/bash
.DEFAULT_GOAL := help
BIN := .venv/bin

.PHONY: help up cluster e2e-k8s e2e-k8s-operator e2e-k8s-scale test test-layouts test-long check conformance nano nano-accuracy soak bench bench-peers bench-simulator bench-scaling bench-capacity capacity drills-streams docs docs-simulator docs-scaling chart format lock venv clients boards alerts-day telemetry

help: ## what there is to make
	@grep -hE '^[a-z0-9-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 13

up: ## serve on this machine: real vLLM on the CPU, simulated nodes
	@began=$$(date +%s.%N); deploy/bootstrap.sh && { deploy/page/build.sh || true; } && exec $(BIN)/r1-serve up --began-at $$began

test: venv ## everything: checks, unit, conformance, contract and live tests
	@$(MAKE) --no-print-directory check
	@$(MAKE) --no-print-directory conformance
	$(BIN)/python -m pytest -n 2 --dist load --durations=3 tests/sim
	$(BIN)/python -m pytest -n 2 --dist loadfile --durations=3 tests/chart
	$(BIN)/python -m pytest --durations=3 -m "not long" tests/loadtest
	# Apart: vLLM in the contract tests' own process changes its environment, which `up` would inherit.
	$(BIN)/python -m pytest --durations=5 tests/contract
	$(BIN)/python -m pytest --durations=20 -m "not long" tests/live
	$(BIN)/python -m pytest --durations=5 -m subset tests/layouts

check: venv ## format, lint, types, imports, unit tests
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/python -m pytest -n 2 --dist loadfile tests/unit

conformance: venv clients ## real clients and a browser against the gateway over scripted engines
	$(BIN)/python -m pytest -n 2 --dist loadfile tests/conformance

test-layouts: venv ## every layout on real vLLM across network namespaces; needs root
	$(BIN)/python -m pytest -v --durations=0 tests/layouts

test-long: venv ## what `make test` has no time for: a fleet that scales itself under a real controller
	$(BIN)/python -m pytest -v -m long tests/live

capacity: venv ## find-capacity against a real gateway over fake engines, three seeds: a quarter of an hour each, on a quiet machine
	$(BIN)/python -m pytest -v -s -m long tests/loadtest

soak: venv ## seeds of the simulator by the thousand, with faults: SEEDS=2000 FIRST=0
	SIM_SEEDS=$${SEEDS:-2000} SIM_FIRST=$${FIRST:-0} $(BIN)/python -m pytest -n 2 --dist load -q \
		tests/sim/test_stories.py -k no_rule

nano: venv ## train r1-nano anew: an hour on one core
	$(BIN)/python -m deploy.nano.train orchestrator/engines/nano.safetensors.xz

nano-accuracy: venv ## how often r1-nano is right on problems that it never saw; on the real engine
	$(BIN)/python -m deploy.nano.accuracy

bench: venv ## measure, and write docs/performance.md
	$(BIN)/python -m tests.bench.report

bench-peers: venv ## the same, and the pass-through beside other people's routers, installed into .peers
	for name in sglang-router==0.3.2 vllm-router==0.1.17; do \
		$(BIN)/uv venv --quiet --allow-existing --python $(BIN)/python .peers/$${name%%=*} && \
		$(BIN)/uv pip install --quiet --python .peers/$${name%%=*}/bin/python $$name; done
	# Without Dynamo's own dependencies, half a gigabyte that a frontend and our workers do not import.
	$(BIN)/uv venv --quiet --allow-existing --python $(BIN)/python .peers/dynamo
	$(BIN)/uv pip install --quiet --python .peers/dynamo/bin/python --no-deps ai-dynamo==1.6.1 ai-dynamo-runtime==1.6.1
	$(BIN)/uv pip install --quiet --python .peers/dynamo/bin/python \
		numpy uvloop msgspec pyzmq pydantic packaging pyyaml prometheus-client typing-extensions
	$(BIN)/python -m tests.bench.report --relay

bench-simulator: venv ## how fast the simulator is on one core, and what it holds
	$(BIN)/python -m tests.bench.simulator_speed

bench-scaling: venv ## a day of scaling beside fixed fleets, utilisation and hindsight: DAY=sine-0, a quarter of an hour
	$(BIN)/python -m tests.bench.scaling_day $${DAY:-sine-0}

bench-capacity: venv ## how good the search for a capacity is, on exact queues: SEEDS=200, some four minutes
	$(BIN)/python -m tests.bench.capacity_coverage --seeds $${SEEDS:-200}

cluster: venv ## a Kubernetes of one node on this machine until Ctrl-C; needs root
	$(BIN)/python -m deploy.cluster .r1-serve/cluster

# Apart, each with a cluster of its own: an image of 4 GB is nothing for the others.
e2e-k8s: venv ## the chart on a real API server, under kubelet and KubeRay, and with real Ray and vLLM; needs root
	$(BIN)/python -m pytest -n 2 --dist loadfile --durations=3 tests/chart/test_api_server.py
	$(BIN)/python -m pytest -v -s --durations=0 tests/k8s/test_operator.py
	$(BIN)/python -m pytest -v -s --durations=0 tests/k8s/test_real.py

e2e-k8s-operator: venv ## of these, the chart under kubelet and KubeRay with a stub of Ray: CI runs it behind `make test`
	$(BIN)/python -m pytest -v -s --durations=0 tests/k8s/test_operator.py

e2e-k8s-scale: venv ## gangs on 64 fake GPU hosts under Kueue and the real scheduler; needs root
	$(BIN)/python -m pytest -v -s --durations=0 tests/k8s/test_scale.py

chart: venv ## write what of the Helm chart is generated: the schema of its values, the profiles, what they render
	$(BIN)/python -m deploy.chart.write

boards: venv ## look at the boards of a fleet on this machine: docs/boards/*.png, and what vLLM and Ray say
	$(BIN)/python -m tests.live.boards --out docs/boards --captured tests/unit/telemetry/captured

alerts-day: venv ## a healthy day of a simulated fleet through the alert rules; minutes of one core
	$(BIN)/python -m tests.sim.alerts_day

telemetry: venv ## write the chart's rules and dashboards, and docs/metrics.md
	$(BIN)/python -m deploy.telemetry.write

# `make drills-streams RUNS=3 ENGINE=vllm`: real vLLM starts a gang in a minute.
RUNS := 20
ENGINE := fake

drills-streams: venv ## streams under drains, deaths, scale-downs and upgrades; writes docs/drills-streams.md; an hour
	$(BIN)/python -m tests.live.drills --keep --runs $(RUNS) --engine $(ENGINE)

docs: venv ## write what is generated: docs/accuracy.md and the error bands of plans
	$(BIN)/r1-serve accuracy --write docs/accuracy.md --groups orchestrator/perf/data/groups.yaml

docs-simulator: venv ## write docs/accuracy-simulator.md: every validate row played, ten minutes of one core
	$(BIN)/r1-serve accuracy --model simulator --write docs/accuracy-simulator.md

docs-scaling: venv ## write docs/scaling.md: days of scaling, 2,000 seeds, overload: DAYS=sine-1,sine-2-8h-2x,..., ten minutes of one core each and more
	$(BIN)/python -m tests.bench.scaling_page --folder .r1-serve/scaling $${DAYS:+--days $$DAYS} docs/scaling.md

format: venv ## rewrite the code in the one format
	$(BIN)/ruff check --fix-only .
	$(BIN)/ruff format .

venv:
	@deploy/bootstrap.sh

clients: venv
	@deploy/clients.sh

# Pins for Linux on x86_64 and Python 3.11; newer Pythons take the same versions.
COMPILE := $(BIN)/uv pip compile pyproject.toml --quiet --python-platform x86_64-manylinux_2_28 \
	--python-version 3.11 --no-annotate --no-strip-markers --no-emit-index-url \
	--no-emit-find-links --custom-compile-command "make lock"

CLIENTS := tests/conformance/clients

lock: ## compile all pins anew
	$(COMPILE) --extra cpu --extra dev --override requirements/cpu-overrides.txt \
		$$(compgen -G "../shared/wheels/torch-*.whl" >/dev/null && echo --find-links ../shared/wheels \
		|| echo --torch-backend cpu) -o requirements/cpu.lock
	$(COMPILE) --extra gpu -o requirements/gpu.lock
	for name in langchain litellm schemathesis; do \
		$(BIN)/uv pip compile $(CLIENTS)/$$name.in --quiet --python-platform x86_64-manylinux_2_28 \
		--python-version 3.11 --no-annotate --no-emit-index-url --custom-compile-command "make lock" \
		-o $(CLIENTS)/$$name.lock; done
	cd $(CLIENTS)/js && npm install --package-lock-only --loglevel=error
	cd deploy/page && npm install --package-lock-only --loglevel=error
