#!/usr/bin/env bash
# Run on the GPU host, in the checkout: bench/offline/install.sh PACKED SITE
# Unpacks what pack.py left in PACKED to SITE, installs this package and writes SITE/env.sh.
set -euo pipefail
packed=$1 site=$2
mkdir -p "$site/_lib" "$site/_include"
site=$(cd "$site" && pwd)

for name in core video; do # either may come by itself
    compgen -G "$packed/$name.tar.xz*" >/dev/null || continue
    cat "$packed/$name".tar.xz* | python3 -c '
import lzma, sys, tarfile
with lzma.open(sys.stdin.buffer) as packed, tarfile.open(fileobj=packed, mode="r|") as tar:
    tar.extractall(sys.argv[1], filter="fully_trusted")' "$site"
done
cd "$(dirname "$0")/../.."
python3 -m pip install --quiet --no-index --no-deps --no-build-isolation -e .

# Where Python does not write bytecode, each process of a server would compile for ten seconds.
python3 -m compileall -q -j 0 "$site" >/dev/null || true # a package has files for Python 2

# What compiling at first use needs and a toolkit may lack: the driver to link, two libraries' headers.
driver=$(ldconfig -p | awk '/libcuda\.so\.1 / {print $NF; exit}')
[ -z "$driver" ] || ln -sf "$driver" "$site/_lib/libcuda.so"
for headers in $(python3 -c 'import nvidia; print(*nvidia.__path__)'); do
    ln -sf "$headers"/cu13/include/{curand,cublas}* "$site/_include/"
done
cat >"$site/env.sh" <<ENV
export PYTHONPATH=$site\${PYTHONPATH:+:\$PYTHONPATH}
export CUDA_HOME=\${CUDA_HOME:-/usr/local/cuda}
export LIBRARY_PATH=$site/_lib\${LIBRARY_PATH:+:\$LIBRARY_PATH}
export CPATH=$site/_include\${CPATH:+:\$CPATH}
export FLASHINFER_CUDA_ARCH_LIST=9.0a FLASHINFER_WORKSPACE_BASE=$site/_cache
export HF_HUB_OFFLINE=1 TRANSFORMERS_OFFLINE=1
# sglang-kernel 0.4.5, the last that is built for torch 2.11; the Rust radix core is built for 2.14.
export SGLANG_SKIP_SGL_KERNEL_VERSION_CHECK=1 SGLANG_UNIFIED_RADIX_TREE_CORE_BACKEND=python
ENV
echo "source $site/env.sh"
