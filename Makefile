# Every command of the project. CI calls only these.
PYTHON ?= python3
BIN := .venv/bin
MEMBERS := proto $(wildcard libs/*) $(wildcard services/*)
export UV_PYTHON_DOWNLOADS := never

.PHONY: help setup lock proto asyncapi metrics settings format lint types imports check test e2e conformance record demo up down bench dist images deploy clean
help:  ## print what can be made
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 14

setup: .venv/ready  ## a venv with the locked dependencies and our own packages
.venv/ready: requirements.lock $(addsuffix /pyproject.toml,$(MEMBERS))
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	test -x $(BIN)/uv || $(BIN)/python -m pip install --quiet --disable-pip-version-check "$$(sed -n 's/^\(uv==[^ ]*\).*/\1/p' requirements.lock)"
	$(BIN)/uv pip sync --quiet --require-hashes requirements.lock
	$(BIN)/uv pip install --quiet --no-deps $(addprefix -e ,$(MEMBERS))
	touch $@

lock:  ## resolve the dependencies anew: one lock, with hashes, without addresses
	$(BIN)/uv lock --quiet
	$(BIN)/uv export --quiet --all-packages --all-groups --no-emit-workspace --no-header --format requirements-txt > requirements.lock
	for s in cache dispatcher lineage snapshotter; do \
	  $(BIN)/uv export --quiet --package periplus-$$s --no-dev --no-emit-workspace --no-header --format requirements-txt > services/$$s/requirements.lock; done
	$(BIN)/uv export --quiet --package periplus-sdk --no-dev --no-emit-workspace --no-header --format requirements-txt > libs/sdk/requirements.lock

proto: setup  ## write proto/gen from the protos
	$(BIN)/python proto/generate.py

asyncapi: setup  ## write docs/asyncapi from the services' handlers
	$(BIN)/python -m periplus_common.bus.asyncapi docs/asyncapi cache dispatcher lineage snapshotter

metrics: setup  ## write the table of docs/telemetry.md from the metrics that the code declares
	$(BIN)/python -m periplus_common.telemetry docs/telemetry.md periplus_common.retention $(foreach s,cache dispatcher lineage snapshotter,periplus_$(s).app)

settings: setup  ## write the tables of docs/operations.md from the services' settings
	$(BIN)/python -m periplus_common.settings_table docs/operations.md $(foreach s,dispatcher cache snapshotter lineage,periplus_$(s).settings)

format: setup  ## let ruff lay out the code
	$(BIN)/ruff format --quiet .
	$(BIN)/ruff check --quiet --fix .

lint: setup  ## style (ruff)
	$(BIN)/ruff format --check --quiet .
	$(BIN)/ruff check --quiet .

types: setup  ## types (mypy, strict)
	$(BIN)/mypy $(foreach m,$(filter-out proto libs/periplus libs/sdk,$(MEMBERS)),$(m)/src) libs/sdk/src/periplus/sdk proto/generate.py

imports: setup  ## who may import whom
	$(BIN)/lint-imports

check: lint types imports proto  ## all that can be said without running: style, types, imports, generated code
	git diff --exit-code --stat -- proto/gen

test: setup  ## every test that needs no cluster, on real NATS, Postgres and S3
	$(BIN)/pytest -n 3 --dist loadfile

e2e: setup  ## the same on the real Argo that ARGO_SERVER and S3_ENDPOINT name
	$(BIN)/pytest tests/e2e

conformance: setup  ## run a folder of manifests on the local Argo, and print the outcome of each: DIR=… [ARGS="-o json"]
	$(BIN)/python -m tests.conformance.folder $(DIR) $(ARGS)

record: setup  ## make the recordings anew on the Argo that ARGO_SERVER names
	$(BIN)/python -m tests.conformance.record

demo: setup  ## a real pipeline, twice: the second time from the cache
	$(BIN)/python examples/demo.py

up: setup  ## start Periplus here, in the foreground
	$(BIN)/periplus up

down: setup  ## stop it
	$(BIN)/periplus down

# Few rounds: enough to see whether something became slow. bench/README.md says how to measure one thing well.
bench: setup  ## run every benchmark with few rounds: about six minutes on two cores
	$(BIN)/python bench/stack.py 1
	$(BIN)/python bench/first_run.py 3
	$(BIN)/python bench/step_start.py 10
	$(BIN)/python bench/discovery.py 5
	$(BIN)/python bench/cached_run.py 10
	$(BIN)/python bench/cache_resolve.py 50
	$(BIN)/python bench/single_flight.py 16 500 1
	$(BIN)/python bench/lineage_ingest.py 20000 1
	$(BIN)/python bench/local_argo.py 100 500 50

DIST ?= dist
dist: setup  ## build the wheels of every member into dist/
	rm -rf $(DIST)
	$(BIN)/uv build --quiet --all-packages --wheel --out-dir $(DIST)

BUILDER ?= $(firstword $(foreach b,docker podman buildah,$(if $(shell command -v $(b)),$(b))))
images:  ## build the images of the services and of SDK steps with docker, podman or buildah: [BUILDER=…] [TAG=…]
	@test -n "$(BUILDER)" || { echo "no image builder here: install docker, podman or buildah, or name one: make images BUILDER=..." >&2; exit 1; }
	for s in cache dispatcher lineage snapshotter; do $(BUILDER) build -t periplus-$$s:$(or $(TAG),latest) -f services/$$s/Dockerfile . || exit 1; done
	$(BUILDER) build -t periplus-runner:$(or $(TAG),latest) -f libs/sdk/Dockerfile .

OVERLAY ?= dev
deploy:  ## apply deploy/k8s to the cluster of kubectl: [OVERLAY=prod]
	kubectl -n periplus delete job --all --ignore-not-found
	kubectl apply -k deploy/k8s/argo
	kubectl apply -k deploy/k8s/overlays/$(OVERLAY)
	kubectl -n periplus wait --for=condition=complete job --all --timeout=5m

clean:  ## remove the files that make made
	rm -rf dist .venv .proto-build .mypy_cache .ruff_cache .pytest_cache .hypothesis uv.lock
