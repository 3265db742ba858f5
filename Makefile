# Every target works on a fresh machine: the virtual environment is made when it is missing or out of date.
PYTHON ?= python3
VENV   ?= .venv
BIN    := $(VENV)/bin
STAMP  := $(VENV)/.installed
CONFIG ?= pipelines/configs/default.yaml
TARGET ?= all
CLASSES ?= 2
IMAGE_CPU ?= natix-cpu:latest
IMAGE_GPU ?= natix-gpu:latest
RELEASE ?=
EXPERIMENT ?= natix
RUN    ?= $(EXPERIMENT)
BASE_IMAGE ?= python:3.11-slim-bookworm
BUILD_IMAGE ?=
GPU_BASE_IMAGE ?= $(BASE_IMAGE)
TORCH_CPU_INDEX ?= https://download.pytorch.org/whl/cpu
TORCH_GPU_INDEX ?=
DOCKER_BUILD ?= docker build --network host
IMAGE_LABELS  = --build-arg VERSION=$(shell sed -n 's/^__version__ = "\(.*\)"/\1/p' natix_lib/__init__.py) \
	--build-arg REVISION=$(shell git describe --always --dirty --abbrev=40 --exclude '*' 2>/dev/null || echo unknown) \
	--build-arg CREATED=$(shell date -u +%Y-%m-%dT%H:%M:%SZ)

PIP  = $(BIN)/python -m pip install --quiet --disable-pip-version-check
LOCK = build/lock/bin/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-annotate --no-header \
	--no-emit-package torch -c requirements-torch.lock pyproject.toml

.DEFAULT_GOAL := help
.PHONY: help install demo test test-slow test-long test-containers check names format compile submit docs screens manifests images image-cpu image-gpu bench bench-explora bench-decisions bench-prior bench-data bench-sets bench-fingerprints bench-predict bench-recalibrate bench-serving lock clean bench-drift bench-accuracy bench-recipes bench-train

help: ## This list
	@awk -F':.*## ' '/^[a-z-]+:.*## / {printf "  %-16s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

install: $(STAMP) ## Make .venv and install natix with its locked dependencies

$(STAMP): pyproject.toml setup.py requirements-dev.lock requirements-torch.lock
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
		|| { echo "natix needs Python 3.11 or newer: make PYTHON=python3.11 ..." >&2; exit 2; }
	$(PYTHON) -m venv $(VENV)
	$(PIP) --require-hashes --no-deps --retries 1 --extra-index-url $(TORCH_CPU_INDEX) -r requirements-torch.lock
	$(PIP) --require-hashes -r requirements-dev.lock
	$(PIP) --no-deps -e .
	@touch $@

demo: install ## The main job on drawn street images: data, backbone, whole pipeline, bundle, report
	rm -rf demo
	$(BIN)/natix demo --output demo --classes $(CLASSES)

test: install ## The fast tests
	$(BIN)/python -m pytest -m "not slow and not long and not containers" -n auto --dist loadgroup

test-slow: install ## Whole pipelines, real photographs, both data sets
	$(BIN)/python -m pytest -m "slow and not alone" -n auto --dist loadgroup
	$(BIN)/python -m pytest -m "slow and alone"

test-long: install ## The guarantees in 2,000 simulated trials each
	$(BIN)/python -m pytest -m long -n auto

test-containers: install ## The pipeline in its images, with a Docker engine of its own where none answers
	images/with-engine $(BIN)/python -m pytest -m containers tests/containers

check: install names ## Format, lint, types, and who may import whom
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-cache

names: # What is installed under another name than its folder's, for tools that read files and import nothing
	@mkdir -p build/names
	@ln -sfn ../../components build/names/natix_components
	@ln -sfn ../../pipelines build/names/natix_pipelines

format: install ## Put the code into its format
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

compile: install ## Compile the pipeline for Kubeflow and Vertex, and refresh the golden files
	$(BIN)/python -m natix_pipelines.compile --config $(CONFIG) --target $(TARGET) \
		--image-cpu $(IMAGE_CPU) --image-gpu $(IMAGE_GPU) $(if $(filter 1,$(RELEASE)),--release) \
		--output build --components build/components
	$(BIN)/python -m natix_pipelines.compile --config pipelines/configs/default.yaml \
		--image-cpu natix-cpu:latest --image-gpu natix-gpu:latest --output tests/pipelines/golden

submit: install ## Start a run: TARGET=kubeflow KFP_ENDPOINT=.. or TARGET=vertex PROJECT=.. REGION=.. PIPELINE_ROOT=gs://..; SET='section.key=value ..'; DOCTOR=0 does not look at the cluster first
	$(if $(PARAMS)$(EXPLORA),$(error PARAMS and EXPLORA are gone: say SET='section.key=value ..', model.init_from_explora=true for ExPLoRA))
	@$(BIN)/python -m natix_pipelines.submit --config $(CONFIG) --target $(TARGET) \
		--image-cpu $(IMAGE_CPU) --image-gpu $(IMAGE_GPU) $(if $(filter 1,$(RELEASE)),--release) \
		--experiment "$(EXPERIMENT)" --run "$(RUN)" --sets "$$SET" $(if $(filter 0,$(DOCTOR)),--no-doctor) \
		--endpoint "$(KFP_ENDPOINT)" --project "$(PROJECT)" --region "$(REGION)" \
		--pipeline-root "$(PIPELINE_ROOT)" --service-account "$(SERVICE_ACCOUNT)"

docs: install ## Write docs/config.md and docs/components.md anew from the keys of the config and the components
	$(BIN)/python -m natix_lib.config.page docs/config.md
	$(BIN)/python -m natix_pipelines.reference docs/components.md

screens: install ## Record what natix run shows, from real runs, into docs/screens.md
	$(BIN)/python -m tests.screens docs/screens.md

manifests: install ## Render every overlay of manifests/ into build/manifests and check it strictly
	$(BIN)/python -m manifests.validate --output build/manifests

images: image-cpu image-gpu ## Build both images, IMAGE_CPU and IMAGE_GPU

image-cpu:
	$(DOCKER_BUILD) -f images/Dockerfile --target cpu -t $(IMAGE_CPU) --build-arg BASE_IMAGE=$(BASE_IMAGE) \
		--build-arg BUILD_IMAGE=$(or $(BUILD_IMAGE),$(BASE_IMAGE)) --build-arg TORCH_INDEX=$(TORCH_CPU_INDEX) $(IMAGE_LABELS) .

image-gpu:
	$(DOCKER_BUILD) -f images/Dockerfile --target gpu -t $(IMAGE_GPU) --build-arg BASE_IMAGE=$(GPU_BASE_IMAGE) \
		--build-arg BUILD_IMAGE=$(or $(BUILD_IMAGE),$(GPU_BASE_IMAGE)) --build-arg TORCH_INDEX=$(TORCH_GPU_INDEX) $(IMAGE_LABELS) .

bench: install ## Feature cache against backbone in every epoch; local runner against direct calls
	$(BIN)/python -m benchmarks.feature_cache
	$(BIN)/python -m benchmarks.local_runner

bench-explora: install ## Adaptation on corrupted CIFAR-10 over three seeds; throughput and memory when a GPU is there
	$(BIN)/python -m benchmarks.explora
	$(BIN)/python -m benchmarks.explora_throughput

bench-decisions: install ## Temperature, sweep and certification against sklearn, torch and MAPIE; what the accept rule could accept
	$(BIN)/python -m benchmarks.decisions
	$(BIN)/python -m benchmarks.power

bench-accuracy: install ## What each road to a model is worth on real images beside histograms: accuracy, seconds, memory, size
	$(BIN)/python -m benchmarks.accuracy

bench-recipes: install ## Which part of a pre-trained backbone to train with how many labelled images
	$(BIN)/python -m benchmarks.recipes

bench-train: install ## Training: the loader beside its peers, the cached path, and steps as a share of a GPU's FLOP limit
	$(BIN)/python -m benchmarks.train_loader
	$(BIN)/python -m benchmarks.train_throughput

bench-drift: install ## False alarms and delays of the test for drift beside crepes and MAPIE
	$(PIP) -e '.[bench]'
	$(BIN)/python -m benchmarks.drift

bench-prior: install ## Class weights taken back, beside a model without weights; what is published, cleared and asked with each promise
	$(BIN)/python -m benchmarks.prior
	$(BIN)/python -m benchmarks.published

bench-data: install ## Duplicates, leaks, grouping, assignment, ingest, formats, label errors, each beside its peers
	$(PIP) -e '.[bench]'
	$(PIP) --no-deps imagededup  # its torchvision would replace torch's CPU build
	for table in duplicates leaks grouping assignment ingest formats label_doubts; do $(BIN)/python -m benchmarks.$$table || exit; done

bench-sets: install ## Split into role sets beside Hugging Face datasets: seconds, peak memory, bytes read
	$(BIN)/python -m benchmarks.role_sets

bench-fingerprints: install ## What check asks of a store or folder of 100,000 files beside its client alone
	$(BIN)/python -m benchmarks.fingerprints --objects 100000

bench-recalibrate: install ## What natix recalibrate of 10,000 images costs beside reading and scoring them, BUNDLE=folder
	$(BIN)/python -m benchmarks.recalibrate --bundle $(or $(BUNDLE),demo/run/bundle)

bench-predict: install ## natix predict beside decoder and runtime alone, BUNDLE=folder
	$(BIN)/python -m benchmarks.predict --bundle $(or $(BUNDLE),demo/run/bundle)

bench-serving: install ## natix serve against the runtime alone, BUNDLE=folder
	$(BIN)/python -m benchmarks.serving --bundle $(or $(BUNDLE),demo/run/bundle)

lock: ## Bring both locks to what pyproject.toml allows, with hashes; UPGRADE=1 takes the newest of all; torch's is kept by hand
	rm -rf build/lock && $(PYTHON) -m venv build/lock
	build/lock/bin/pip install --quiet --disable-pip-version-check uv
	$(if $(UPGRADE),rm -f requirements.lock requirements-dev.lock)
	$(LOCK) --extra all --output-file requirements.lock
	$(LOCK) --extra dev --output-file requirements-dev.lock
	$(LOCK) --extra all -c requirements.lock --no-strip-extras --output-file build/lock/requirements.lock
	$(LOCK) --extra dev -c requirements-dev.lock --no-strip-extras --output-file build/lock/requirements-dev.lock
	for name in requirements.lock requirements-dev.lock; do \
		printf '\n# What is asked for with an extra, for pip below 24, which takes it for another package\n' >> $$name; \
		awk '/^[^ ]/ {extra = /^[^ ]+\[/} extra' build/lock/$$name >> $$name; \
		printf '# By make lock: pip install --require-hashes -r %s\n-r requirements-torch.lock\n' $$name | cat - $$name > build/lock/whole; \
		cp build/lock/whole $$name; \
	done
	rm -rf build/lock

clean: ## Remove what the other targets made
	rm -rf $(VENV) build demo runs .pytest_cache .mypy_cache .ruff_cache
