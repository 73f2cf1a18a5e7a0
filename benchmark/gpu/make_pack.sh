#!/usr/bin/env bash
# What a GPU machine without a network lacks, in one archive: SGLang, the packages it imports, and
# its kernels for sm_90. The machine has Python 3.12, torch 2.11 and transformers.
#
#   benchmark/gpu/make_pack.sh [FOLDER]      default: .pack, which git ignores
#
# The pair is not one that SGLang releases: 0.5.23 asks for a newer torch, and this is the last
# sglang-kernel built for torch 2.11. Say so beside figures.
set -euo pipefail
cd "$(dirname "$0")/../.."
out=$(realpath -m "${1:-.pack}")
python=${PYTHON:-.venv/bin/python}
wheels=$out/wheels
site=$out/site
mkdir -p "$wheels"
rm -rf "$site"
mkdir "$site"

platforms=()
for minor in 39 35 34 31 28 27 26 24 17 12 5; do
  platforms+=(--platform "manylinux_2_${minor}_x86_64")
done
for name in manylinux2014 manylinux2010 manylinux1; do
  platforms+=(--platform "${name}_x86_64")
done
for abi in cp312 abi3 none cp310; do
  platforms+=(--abi "$abi")
done
get() {
  "$python" -m pip download -q --no-deps --only-binary=:all: --python-version 3.12 \
    --implementation cp "${platforms[@]}" -d "$wheels" "$@"
}
get sglang==0.5.23 sglang-kernel==0.4.5
get fastapi==0.165.0 starlette==1.10.0 opentelemetry-api==1.45.2 uvicorn==0.54.0 \
  python-multipart==0.0.34 pydantic==2.14.3 pydantic-core==2.50.4 annotated-types==0.8.0 \
  typing-inspection==0.4.5 pyzmq==27.3.0 orjson==3.13.0 msgspec==0.22.0 setproctitle==1.3.8 \
  pybase64==1.5.1 partial-json-parser==0.2.1.1.post7 interegular==0.3.3 openai==2.8.0 \
  jiter==0.19.0 distro==1.9.0 sniffio==1.3.1 dill==0.4.1 loguru==0.7.3 jsonschema==4.26.0 \
  jsonschema-specifications==2025.9.1 referencing==0.37.0 rpds-py==2026.9.1 \
  compressed-tensors==0.18.0 gguf==0.19.0 xgrammar==0.2.7 apache-tvm-ffi==0.1.11

for wheel in "$wheels"/*.whl; do
  case $wheel in
    *sglang_kernel-*)
      unzip -q -o "$wheel" 'sgl_kernel/*' '*.dist-info/*' \
        -x '*flash_ops*' '*infllm_ops*' '*flashmla_ops*' 'sgl_kernel/sm100/*' -d "$site"
      ;;
    *) unzip -q -o "$wheel" -d "$site" ;;
  esac
done

# What serving text on one GPU never imports. The Rust parts are built for a newer torch.
srt=$site/sglang/srt
rm -rf "$site/sglang/multimodal_gen" "$site/sglang/test" "$site"/sglang/lang/backend/*vertex* \
  "$srt/layers/moe/moe_runner/triton_utils/configs" "$site/sglang/kernels/ops/gemm/configs" \
  "$site/sglang/kernels/jit/benchmark" "$site/bin" "$site/share" "$site"/*.data
rm -f "$srt"/rust_extensions/*.so "$srt"/mem_cache/rust_tree_core/*.so
find "$site" -name __pycache__ -type d -prune -exec rm -rf {} +

# Imported at start, not used by what is run.
mkdir -p "$site/IPython"
: > "$site/IPython/__init__.py"
printf 'def HTML(*args, **kwargs):\n    return None\n\n\ndef display(*args, **kwargs):\n    return None\n' \
  > "$site/IPython/display.py"
: > "$site/soundfile.py"

# This package comes with the working tree; SGLang finds it by its entry points.
info=$site/sglang_multiverse-0.0.0.dist-info
mkdir -p "$info"
printf 'Metadata-Version: 2.1\nName: sglang-multiverse\nVersion: 0.0.0\n' > "$info/METADATA"
"$python" - > "$info/entry_points.txt" <<'P'
import tomllib
from pathlib import Path

groups = tomllib.loads(Path("pyproject.toml").read_text())["project"]["entry-points"]
for group, points in groups.items():
    print(f"[{group}]", *(f"{name} = {target}" for name, target in points.items()), "", sep="\n")
P
tar -C "$site" -cf - . | xz -9 -T2 > "$out/site.tar.xz"
rm -rf "$site"
ls -l "$out/site.tar.xz"
