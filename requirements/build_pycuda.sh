#!/usr/bin/env bash
# Builds pycuda, which has no wheels, on Linux without the CUDA Toolkit and without a driver, and installs it.
# usage: bash requirements/build_pycuda.sh [PYTHON [FOLDER]]
#   PYTHON  interpreter of the environment to install into; python3 if left out
#   FOLDER  where to keep the wheel, for other machines with the same Python
set -euo pipefail
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
python=${1:-python3}
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
wheels=${2:-$work/wheels}

pip() { "$python" -m pip "$1" --quiet --disable-pip-version-check "${@:2}"; }
has_headers() {
  "$python" -c 'import os, sys, sysconfig; sys.exit(not os.path.isfile(sysconfig.get_path("include") + "/Python.h"))'
}

if ! command -v g++ > /dev/null || ! has_headers; then
  echo "pycuda is compiled, which needs g++ and the headers of $python; on Debian: apt-get install g++ python3-dev" >&2
  exit 1
fi
echo "building pycuda, which takes some minutes"

# NVIDIA's headers, as packages.
pip install --no-deps --target "$work/cuda" --constraint "$root/constraints.txt" \
  nvidia-cuda-runtime nvidia-cuda-crt nvidia-cuda-profiler-api
# The linker only has to note the driver's name: on the machine that runs pycuda, it is there.
mkdir "$work/driver"
gcc -shared -Wl,-soname,libcuda.so.1 -o "$work/driver/libcuda.so" -x c /dev/null

pip download --no-deps --no-binary pycuda --dest "$work" --constraint "$root/constraints.txt" pycuda
mkdir "$work/pycuda"
tar -xzf "$work"/pycuda-*.tar.gz -C "$work/pycuda" --strip-components 1
# Without cuRAND, which nothing here uses, pycuda loads no library but the driver.
cat > "$work/pycuda/siteconf.py" <<END
CUDA_INC_DIR = ["$work/cuda/nvidia/cu13/include"]
CUDADRV_LIB_DIR = ["$work/driver"]
CUDA_ENABLE_CURAND = False
END
CFLAGS="${CFLAGS:--O1 -g0 -w}" LDFLAGS="-Wl,--no-as-needed" pip wheel --no-deps --wheel-dir "$wheels" "$work/pycuda"

pip install --no-deps --force-reinstall "$wheels"/pycuda-*.whl
pip install --constraint "$root/constraints.txt" "$wheels"/pycuda-*.whl
