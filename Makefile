# make demo    sets everything up and runs the main job with a PACS and a modality of its own
# make test    sets everything up and runs every check: lint, types, import contracts, tests
# make bench   seconds for each step of the demonstration study, and the node's own share
# make bench-quality  every method's pointing, faithfulness and sanity on the demonstration model
# make bench-cam  time and memory of the CAM methods beside other libraries, in one process

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
CONSTRAINTS := deploy/constraints.txt
ORACLES := deploy/oracle-requirements.txt
READY := $(VENV)/.ready

.PHONY: setup demo test lint types contracts unit bench bench-cam bench-quality clean

setup: $(READY)

$(READY): pyproject.toml $(CONSTRAINTS) $(ORACLES)
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet --constraint $(CONSTRAINTS) "torch==2.13.0"
	$(BIN)/python -m pip install --quiet --constraint $(CONSTRAINTS) --editable ".[cpu,demo,test,oracle]"
	$(BIN)/python -m pip install --quiet --constraint $(CONSTRAINTS) --no-deps --requirement $(ORACLES)
	touch $(READY)

demo: setup
	$(BIN)/python deploy/demo/demo.py

test: setup lint types contracts unit

lint: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: setup
	$(BIN)/mypy

contracts: setup
	$(BIN)/lint-imports

unit: setup
	$(BIN)/python -m pytest

bench: setup
	$(BIN)/python tests/benchmarks/bench_door_to_door.py

bench-cam: setup
	$(BIN)/python tests/benchmarks/bench_cam.py

bench-quality: setup
	$(BIN)/python tests/benchmarks/bench_quality.py

clean:
	rm -rf $(VENV) out build *.egg-info
