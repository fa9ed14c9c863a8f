#!/usr/bin/env bash
# On a machine with an NVIDIA GPU: builds the package with CUDA, runs the tests that need the GPU,
# compares its results with the CPU's, and prints the GPU's table.
#
#   bench/gpu_check.sh [RESULTS.json]
#
# PYTHON: interpreter with the packages of `.[test,cuda]` (default: python3). Nothing is installed
# into it: the build goes to build/gpu_check. PIP_ARGS: for pip, such as --no-build-isolation.
# SKIP: any of "tests sanitizer bench", left out.
set -euo pipefail
cd "$(dirname "$0")/.."
python=${PYTHON:-python3}
skip=" ${SKIP:-} "
site=$PWD/build/gpu_check
export PYTHONPATH=$site${PYTHONPATH:+:$PYTHONPATH}

if command -v nvidia-smi >/dev/null; then
  nvidia-smi --query-gpu=name,driver_version,memory.total --format=csv,noheader
fi
# shellcheck disable=SC2086
time "$python" -m pip install --quiet --disable-pip-version-check ${PIP_ARGS:-} --no-deps --upgrade \
  --target "$site" -C cmake.define.EXTREME3D_CUDA=ON -C cmake.define.EXTREME3D_CUDA_HOST=ON \
  -C cmake.define.CMAKE_CUDA_ARCHITECTURES=native .
"$python" -c 'from extreme3d_fast import _cuda; print(_cuda.devices())'

status=0
if [[ $skip != *" tests "* ]]; then
  "$python" -m pytest -q -m gpu -p no:cacheprovider -W default tests || status=$?
fi
if [[ $skip != *" sanitizer "* ]] && command -v compute-sanitizer >/dev/null; then
  # the operations alone: networks would take hours in it
  compute-sanitizer --tool memcheck --error-exitcode 9 --print-limit 5 \
    "$python" -m pytest -q -m gpu -x -p no:cacheprovider -W default \
    tests/test_cuda_mesh.py tests/test_cuda_rasterize.py tests/test_cuda_dense.py \
    tests/test_cuda_zipper.py -k "not photo and not random" || status=$?
fi
if [[ $skip != *" bench "* ]]; then
  "$python" -m bench gpu ${1:+--json "$1"} || status=$?
fi
exit $status
