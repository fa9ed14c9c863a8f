# Two commands for a newcomer: `make demo [PHOTO=path]` and `make test`. Both need Python 3.10 or
# later, a C++20 compiler and make; everything else is installed into .venv.
PYTHON ?= python3
PHOTO ?=
OUT ?= out
WERROR ?= OFF
# The module for NVIDIA GPUs takes minutes to compile: here only where there is a GPU. OFF, ON or AUTO
# (where nvcc is found, as `pip install .` does); for which GPUs, as CMAKE_CUDA_ARCHITECTURES.
GPU := $(shell nvidia-smi -L 2>/dev/null)
CUDA ?= $(if $(GPU),AUTO,OFF)
CUDA_ARCHITECTURES ?= $(if $(GPU),native,75-real;80-real;86-real;89-real;90)

VENV := .venv
PY := $(VENV)/bin/python
PIP := $(PY) -m pip --disable-pip-version-check --quiet
SHIPPED := pyproject.toml CMakeLists.txt \
  $(shell find cpp cuda python -type f -not -name '*.pyc' -not -name '*.so')
CPP := $(shell find cpp cuda -name "*.h" -o -name "*.cpp" -o -name "*.cu")

.PHONY: demo test check format stubs bench sanitize clean

demo: $(VENV)/demo
	$(VENV)/bin/extreme3d demo $(if $(PHOTO),"$(PHOTO)") -o "$(OUT)"

test: check
	$(PY) -m pytest

check: $(VENV)/test
	$(PY) -m ruff check .
	$(PY) -m ruff format --check .
	$(PY) -m mypy
	$(VENV)/bin/clang-format --dry-run -Werror $(CPP)

format: $(VENV)/test
	$(PY) -m ruff check --fix .
	$(PY) -m ruff format .
	$(VENV)/bin/clang-format -i $(CPP)

# Types of the C++ module, for mypy and editors: run after a binding has changed, and commit.
stubs: $(VENV)/test
	$(PIP) install pybind11-stubgen
	$(VENV)/bin/pybind11-stubgen extreme3d_fast._core --output-dir build/stubs
	cp build/stubs/extreme3d_fast/_core.pyi python/extreme3d_fast/_core.pyi
	$(PY) -m ruff format --quiet python/extreme3d_fast/_core.pyi
	$(PY) -m ruff check --fix --quiet python/extreme3d_fast/_core.pyi

bench: $(VENV)/demo
	$(PY) -m bench stages

# The tests of the C++ core under AddressSanitizer and UndefinedBehaviorSanitizer (GCC on Linux).
sanitize: $(VENV)/test
	$(PIP) install "cmake>=3.31" ninja pybind11 nanobind cmeel-eigen
	$(VENV)/bin/cmake -S . -B build/sanitize -G Ninja -DPython_EXECUTABLE=$(abspath $(PY)) \
	  -DCMAKE_MAKE_PROGRAM=$(abspath $(VENV)/bin/ninja) -DCMAKE_BUILD_TYPE=RelWithDebInfo \
	  -DEXTREME3D_CUDA=OFF -DEXTREME3D_CUDA_HOST=ON \
	  -DCMAKE_CXX_FLAGS="-fsanitize=address,undefined -fno-sanitize-recover=undefined"
	$(VENV)/bin/cmake --build build/sanitize
	rm -rf build/sanitize/site && cp -r python build/sanitize/site
	cp build/sanitize/*.so build/sanitize/site/extreme3d_fast/
	LD_PRELOAD="$$(gcc -print-file-name=libasan.so) $$(gcc -print-file-name=libstdc++.so)" \
	  ASAN_OPTIONS=detect_leaks=0 PYTHONPATH=build/sanitize/site $(PY) -m pytest -x \
	  -k "not photos_of_the_paper and not scans"

clean:
	rm -rf build dist out $(VENV)

$(PY):
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10))' || \
	  { echo "Python 3.10 or later is needed; say make PYTHON=... where it is"; exit 1; }
	$(PYTHON) -m venv $(VENV)

# The wheel is built once for all targets, from the sources as they are now.
$(VENV)/wheel: $(SHIPPED) | $(PY)
	rm -rf dist
	$(PIP) wheel --no-deps --wheel-dir dist -C cmake.define.EXTREME3D_WERROR=$(WERROR) \
	  -C cmake.define.EXTREME3D_CUDA_HOST=ON -C cmake.define.EXTREME3D_CUDA=$(CUDA) \
	  -C "cmake.define.CMAKE_CUDA_ARCHITECTURES=$(CUDA_ARCHITECTURES)" .
	touch $@

$(VENV)/demo $(VENV)/test: $(VENV)/wheel
	$(PIP) install --force-reinstall --no-deps dist/*.whl
	$(PIP) install "$$(echo dist/*.whl)[$(@F)]"
	touch $@
