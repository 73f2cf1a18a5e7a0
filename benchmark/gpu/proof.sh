#!/usr/bin/env bash
# All that is to be shown on a GPU, in stages, most valuable first. See docs/gpu.md.
#
#   benchmark/gpu/proof.sh [--out FOLDER] [--pack FOLDER] [--seconds 480] [--only STAGE …]
#   benchmark/gpu/proof.sh --rehearse            the same at tiny sizes, on a CPU, interpreted
set -uo pipefail
cd "$(dirname "$0")/../.."
began=$(date +%s)
out=${OUT:-gpu-proof}
pack=.pack
rehearse=
rest=()
while [ $# -gt 0 ]; do
  case $1 in
    --out) out=$2; shift ;;
    --pack) pack=$2; shift ;;
    --rehearse) rehearse=1; rest+=("$1") ;;
    *) rest+=("$1") ;;
  esac
  shift
done
mkdir -p "$out"

python=${PYTHON:-python3}
path=$PWD/python:$PWD/test:$PWD/test/attention
if [ -n "$rehearse" ]; then
  python=${PYTHON:-.venv/bin/python}
  export TRITON_INTERPRET=1 OMP_NUM_THREADS=1
else
  if [ -f "$pack/site.tar.xz" ]; then
    site=$(mktemp -d)/site
    mkdir -p "$site"
    tar -xJf "$pack/site.tar.xz" -C "$site" || exit 1
    # Bytecode by many processes at once, before many processes import the same files.
    "$python" -m compileall -q -j 0 "$site" > /dev/null 2>&1 &
    path=$site:$path
  fi
  # The Rust core of the radix tree is built for another torch.
  export SGLANG_UNIFIED_RADIX_TREE_CORE_BACKEND=python SGLANG_SKIP_SGL_KERNEL_VERSION_CHECK=1
  export CUDA_HOME=${CUDA_HOME:-/usr/local/cuda} HF_HUB_OFFLINE=1
  wait
fi
export PYTHONPATH=$path${PYTHONPATH:+:$PYTHONPATH} PYTHONUNBUFFERED=1 TOKENIZERS_PARALLELISM=false
exec "$python" benchmark/gpu/proof.py --out "$out" --began "$began" ${rest[@]+"${rest[@]}"}
