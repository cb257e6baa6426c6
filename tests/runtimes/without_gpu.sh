#!/bin/sh
# sh without_gpu.sh VENV: what the tests of the NVIDIA path can use on a machine without a GPU, into VENV. Each by itself
# may fail, with a line that says so; the tests that want it are then skipped.
#   pycuda         built against a stub of the driver (stub_device.c), where there is a CUDA toolkit; 2 minutes
#   TensorRT-RTX   1.4, with the interface of TensorRT 10, in VENV/rtx-1.4
set -u
venv=$(cd "$1" && pwd)
here=$(cd "$(dirname "$0")" && pwd)

pycuda() {
    "$venv/bin/python" -c 'import importlib.util as u; raise SystemExit(u.find_spec("pycuda") is None)' && return 0
    for folder in "${CUDA_HOME:-}" /usr/local/cuda /usr/local/cuda-*; do
        [ -e "$folder/include/cuda.h" ] && toolkit=$folder && break
    done
    [ -n "${toolkit:-}" ] || { echo "no CUDA toolkit: tests over a stub of the driver are skipped" && return 0; }
    home=$(mktemp -d)
    # As wide as a build on a machine with a driver, but for cuRAND, which nothing here uses.
    cat > "$home/.aksetup-defaults.py" <<PYTHON
CUDA_ROOT = "$toolkit"
CUDA_INC_DIR = ["$toolkit/include"]
CUDADRV_LIB_DIR = ["$home"]
CUDART_LIB_DIR = ["$toolkit/lib64", "$toolkit/lib"]
CUDA_ENABLE_CURAND = False
LDFLAGS = ["-Wl,--no-as-needed"]
PYTHON
    cc -shared -fPIC -Wl,-soname,libcuda.so.1 -o "$home/libcuda.so" "$here/stub_device.c" &&
        XDG_CONFIG_HOME=${XDG_CONFIG_HOME:-$HOME/.config} HOME=$home \
            "$venv/bin/python" -m pip install --quiet --no-cache-dir pycuda > "$home/log" 2>&1 || {
        [ -e "$home/log" ] && tail -3 "$home/log"
        echo "pycuda was not built: tests over a stub of the driver are skipped"
    }
    rm -rf "$home"
}

older_tensorrt() {
    own=$("$venv/bin/python" -c 'import sysconfig; print(sysconfig.get_path("purelib"))')
    [ -e "$venv/rtx-1.4/complete" ] && return 0
    log=$(mktemp)
    "$venv/bin/python" -m venv --clear "$venv/rtx-1.4" &&
        "$venv/rtx-1.4/bin/python" -m pip install --quiet tensorrt_rtx==1.4.0.76 > "$log" 2>&1 &&
        echo "import site; site.addsitedir('$own')" > \
            "$("$venv/rtx-1.4/bin/python" -c 'import sysconfig; print(sysconfig.get_path("purelib"))')/zz-edgecxr.pth" &&
        touch "$venv/rtx-1.4/complete" || {
        tail -3 "$log"
        rm -rf "$venv/rtx-1.4"
        echo "no TensorRT-RTX 1.4: its test is skipped"
    }
    rm -f "$log"
}

pycuda &
older_tensorrt &
wait
