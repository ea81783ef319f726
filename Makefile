# `make demo` and `make test` need Python >= 3.11 and nothing else; run again, they reuse what is there.
# `make gpu` needs Linux, an NVIDIA driver and g++ too.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
INSTALL := $(BIN)/pip install --quiet --disable-pip-version-check --constraint constraints.txt
# Where TensorRT's libraries come from: NVIDIA, or a mirror.
NVIDIA_INDEX ?= https://pypi.nvidia.com

.PHONY: demo gpu test lint types layers unit emulated format clean

demo: $(VENV)/.runtime
	$(BIN)/cascade-rt demo --output out/demo

gpu: $(VENV)/.gpu
	$(BIN)/cascade-rt doctor

test: lint types layers unit emulated

lint: $(VENV)/.dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(VENV)/.dev
	$(BIN)/mypy

layers: $(VENV)/.dev
	$(BIN)/lint-imports

# In their own order: files of few tests, which xdist would leave for the end, are the longest.
PYTEST := -m pytest --numprocesses auto --dist loadfile --no-loadscope-reorder --max-worker-restart 0
unit: $(VENV)/.dev
	$(BIN)/python $(PYTEST) -m "not slow and not gpu"

# On an emulated GPU (tests/cuda_emulator), which has to be compiled.
emulated: $(VENV)/.dev
	$(BIN)/python -m tests.cuda_emulator.build $(VENV)/emulated-gpu --run $(PYTEST) -m "not slow and gpu"

format: $(VENV)/.dev
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

clean:
	rm -rf $(VENV) out

$(BIN)/python:
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "cascade-rt needs Python >= 3.11; name one: make PYTHON=python3.12 ...")'
	$(PYTHON) -m venv $(VENV)

$(VENV)/.runtime: pyproject.toml constraints.txt | $(BIN)/python
	$(INSTALL) --editable '.[cpu]'
	touch $@

# ONNX Runtime comes for a CPU or for GPUs. ONNX Runtime on the GPU works already if one of the later steps fails.
$(VENV)/.gpu: pyproject.toml constraints.txt requirements/build_pycuda.sh | $(BIN)/python
	$(BIN)/pip uninstall --quiet --yes onnxruntime onnxruntime-gpu
	$(INSTALL) --editable '.[gpu]'
	bash requirements/build_pycuda.sh $(BIN)/python
	$(INSTALL) --extra-index-url $(NVIDIA_INDEX) --editable '.[gpu,tensorrt]'
	touch $@ $(VENV)/.runtime

$(VENV)/.dev: pyproject.toml constraints.txt | $(BIN)/python
	$(INSTALL) --editable '.[dev]'
	touch $@ $(VENV)/.runtime
