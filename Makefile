# make demo       install, then calibrate, prune, export, build, generate and check the built-in model
# make lint       install, then ruff, mypy and the check of the order of imports
# make test       install, then the quick tests (make test-all: all but the exports of later families, which are in
#                 make test-families)
# make docs       install, then the site of docs/, in build/site
# make gpu-check  the tests and the benchmark that need an NVIDIA GPU; skips with a reason where there is none
# make bench      measures the figures of docs/performance.md (bench-large: those of docs/benchmarks.md)
# make study      measures what pruning does to trained models: docs/fidelity.md (hours; goes on where it was stopped)
# make bench-14b  pruning and export of Wan 2.1 14B (60 GB of disk, not part of make bench)

PYTHON ?= python3.11
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed

.PHONY: demo lint test test-all test-families docs gpu-check bench bench-large bench-14b study clean

demo: $(STAMP)
	$(BIN)/f3prune run zoo:digits -o runs/demo --alpha 0.4

lint: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-cache

test: $(STAMP)
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --durations=25

test-all: $(STAMP)
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --durations=25 -m "not exhaustive"

test-families: $(STAMP)
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --durations=25 -m exhaustive

docs: $(STAMP)
	$(BIN)/python -m mkdocs build

gpu-check: $(STAMP)
	$(BIN)/python -m pytest -m gpu -rs tests
	$(BIN)/python benchmarks/gpu/visit_a.py --seconds 1500 --json benchmarks/results/gpu_a.json

bench: $(STAMP)
	$(BIN)/python benchmarks/shapes.py --json benchmarks/results/shapes.json
	$(BIN)/python benchmarks/contenders.py --json benchmarks/results/contenders.json
	$(BIN)/python benchmarks/calibration_cost.py --json benchmarks/results/calibration_cost.json
	$(BIN)/python benchmarks/runtime.py --json benchmarks/results/runtime.json
	$(BIN)/python benchmarks/full_size.py --json benchmarks/results/full_size.json
	$(BIN)/python benchmarks/check_memory.py --json benchmarks/results/check_memory.json
	$(BIN)/python benchmarks/plan.py --json benchmarks/results/plan.json
	$(BIN)/python benchmarks/performance_page.py

bench-large: $(STAMP)
	$(BIN)/python benchmarks/tune_a_video.py --json benchmarks/results/tune_a_video.json
	$(BIN)/python benchmarks/cogvideo_decode.py --json benchmarks/results/cogvideo_decode.json
	$(BIN)/python benchmarks/calibration_memory.py --json benchmarks/results/calibration_memory.json

bench-14b: $(STAMP)
	$(BIN)/python benchmarks/full_size.py --only wan-14b --json benchmarks/results/full_size_14b.json
	$(BIN)/python benchmarks/performance_page.py

study: $(STAMP)
	OMP_NUM_THREADS=1 $(BIN)/python benchmarks/study.py --json benchmarks/results/study.json
	$(BIN)/python benchmarks/study_page.py
	$(BIN)/python benchmarks/performance_page.py

$(STAMP): pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV) || python3 -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt torch==2.13.0
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev]'
	touch $@

clean:
	rm -rf $(VENV) build dist *.egg-info runs
