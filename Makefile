# Every command of the project. CI calls only these.
PYTHON ?= python3
BIN := .venv/bin
MEMBERS := proto $(wildcard libs/*) $(wildcard services/*)
export UV_PYTHON_DOWNLOADS := never

.PHONY: help setup lock proto asyncapi format lint types imports check test e2e conformance record demo up down bench clean
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

proto: setup  ## write proto/gen from the protos
	$(BIN)/python proto/generate.py

asyncapi: setup  ## write docs/asyncapi from the services' handlers
	$(BIN)/python -m periplus_common.bus.asyncapi docs/asyncapi $(foreach s,cache dispatcher lineage snapshotter,$(if $(wildcard services/$(s)/src/periplus_$(s)/asyncapi.py),$(s)))

format: setup  ## let ruff lay out the code
	$(BIN)/ruff format --quiet .
	$(BIN)/ruff check --quiet --fix .

lint: setup  ## style (ruff)
	$(BIN)/ruff format --check --quiet .
	$(BIN)/ruff check --quiet .

types: setup  ## types (mypy, strict)
	$(BIN)/mypy $(foreach m,$(filter-out proto libs/sdk,$(MEMBERS)),$(m)/src) libs/sdk/src/periplus/sdk proto/generate.py

imports: setup  ## who may import whom
	$(BIN)/lint-imports

check: lint types imports proto  ## all that can be said without running: style, types, imports, generated code
	git diff --exit-code --stat -- proto/gen

test: setup  ## every test that needs no cluster, on real NATS, Postgres and S3
	$(BIN)/pytest -n 2 --dist loadfile

e2e: setup  ## the same on the real Argo that ARGO_SERVER and S3_ENDPOINT name
	$(BIN)/pytest tests/e2e

conformance: setup  ## run a folder of manifests on the local Argo, and say of each what became of it: DIR=… [ARGS="-o json"]
	$(BIN)/python -m tests.conformance.folder $(DIR) $(ARGS)

record: setup  ## make the recordings anew on the Argo that ARGO_SERVER names
	$(BIN)/python -m tests.conformance.record

demo: setup  ## a real pipeline, twice: the second time from the cache
	$(BIN)/python examples/demo.py

up: setup  ## start Periplus here, in the foreground
	$(BIN)/periplus up

down: setup  ## stop it
	$(BIN)/periplus down

clean:  ## remove what was made here
	rm -rf .venv .proto-build .mypy_cache .ruff_cache .pytest_cache .hypothesis uv.lock
