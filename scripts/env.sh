#!/usr/bin/env bash
# Make this checkout runnable: `.venv/bin/python` with every dependency and the project.
#
# There are two layers, because the dependencies take 2 to 11 GB and the project none:
#
#   1. the environment, outside the checkout, built once from a lock and shared by every
#      checkout with the same lock and Python. Without an NVIDIA GPU that lock is
#      requirements-light.lock, else requirements.lock;
#   2. `.venv`, in the checkout: an empty virtual environment that sees the
#      environment's packages and has only this checkout installed, editable. So each
#      checkout has its own entry points, and none disturbs another.
#
# Then the CPU kernels are compiled, once for each version of their sources.
#
# Usage: scripts/env.sh [--where | --env-only]
#   --where          print the environment's place and stop
#   --env-only       build the environment and stop: an image installs a wheel into it
# Variables:
#   MULTIVERSE_LOCK  light or full, whatever the machine has
#   MULTIVERSE_ENV   the environment's place (default: under ~/.cache, by lock and Python)
#   PYTHON           the interpreter to build with (default: the first fit one, 3.11 first)
set -euo pipefail

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd -P)
say() { printf 'env: %s\n' "$*" >&2; }
die() { say "$*"; exit 1; }
digest() { cat "$@" | sha256sum | cut -c1-12; }

# A fit interpreter is 3.11 or later and can build a virtual environment with pip in it.
fit() { "$1" -c 'import sys, venv, ensurepip; sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1; }

find_python() {
    if [[ -n ${PYTHON:-} ]]; then
        fit "$PYTHON" || die "PYTHON=$PYTHON is not Python 3.11 or later with venv and ensurepip"
        command -v "$PYTHON"
        return
    fi
    local name
    for name in python3.11 python3.12 python3.13 python3; do
        if fit "$name"; then
            command -v "$name"
            return
        fi
    done
    die "no Python 3.11 or later with venv and ensurepip on PATH; set PYTHON"
}

find_lock() {
    case ${MULTIVERSE_LOCK:-} in
        light | full) printf '%s\n' "$MULTIVERSE_LOCK" ;;
        '') if [[ -e /dev/nvidiactl || -e /dev/dxg ]]; then echo full; else echo light; fi ;;
        *) die "MULTIVERSE_LOCK=$MULTIVERSE_LOCK is neither light nor full" ;;
    esac
}

kind=$(find_lock)
python=$(find_python)
tag=$("$python" -c 'import sys, platform; print("py%d.%d-%s" % (*sys.version_info[:2], platform.machine()))')
if [[ $kind == light ]]; then
    lock=$root/requirements-light.lock
    key=light-$(digest "$lock" "$root"/scripts/{trim,torchvision_cpu,warm}.py)-$tag
    size='2 GB; a minute or two'
else
    lock=$root/requirements.lock
    key=$(digest "$lock")-$tag
    size='11 GB; minutes'
fi
home=${XDG_CACHE_HOME:-${HOME:-/tmp}/.cache}
env=${MULTIVERSE_ENV:-$home/sglang-multiverse/env-$key}
started=$env/.multiverse-started   # ours; without it we never delete the directory
complete=$env/.multiverse-complete # holds the key; written last

if [[ ${1:-} == --where ]]; then
    printf '%s\n' "$env"
    exit 0
fi

# ---- layer 1: the environment ----

is_complete() { [[ -f $complete && $(<"$complete") == "$key" ]]; }

# A place given by the user that this script did not build is used, never changed.
is_foreign() { [[ -x $env/bin/python && ! -e $started ]]; }

pin_of() { sed -n 's/^sglang==//p' "$lock"; }

check_foreign() {
    local found
    found=$("$env/bin/python" -c 'from importlib.metadata import version; print(version("sglang"))' 2>/dev/null) ||
        die "$env exists, was not built by this script and has no sglang; set MULTIVERSE_ENV to another place"
    [[ $found == "$(pin_of)" ]] || die "$env has sglang $found, but this checkout is for $(pin_of)"
}

build() {
    if [[ -e $env ]]; then
        if [[ -e $started ]]; then
            say "removing an unfinished or outdated environment: $env"
            rm -rf -- "$env"
        elif [[ -n $(ls -A "$env") ]]; then
            die "$env is neither empty nor an environment; set MULTIVERSE_ENV to another place"
        fi
    fi
    say "building $env from ${lock##*/} (about $size, once)"
    mkdir -p "$env"
    touch "$started"
    "$python" -m venv "$env"
    if [[ $kind == full ]]; then
        UV_COMPILE_BYTECODE=1 "$env/bin/python" "$root/scripts/install.py" "$lock"
    else
        "$env/bin/python" "$root/scripts/install.py" "$lock"
        "$env/bin/python" "$root/scripts/trim.py"
        local site
        site=$("$env/bin/python" -c 'import sysconfig; print(sysconfig.get_path("purelib"))')
        cp "$root/scripts/torchvision_cpu.py" "$site/multiverse_torchvision.py"
        echo 'import multiverse_torchvision' >"$site/multiverse_torchvision.pth"
        "$env/bin/python" "$root/scripts/warm.py" >/dev/null
    fi
    printf '%s\n' "$key" >"$complete.tmp"
    mv "$complete.tmp" "$complete"
    say "built $env in $SECONDS s"
}

if is_foreign; then
    check_foreign
elif ! is_complete; then
    mkdir -p "$(dirname "$env")"
    exec 9>"$env.lock"
    if ! flock --nonblock 9; then
        say "waiting for another build of $env"
        flock 9
    fi
    is_complete || build # the other build may have been the one we need
    exec 9>&-
fi

if [[ ${1:-} == --env-only ]]; then
    exit 0
fi

# ---- layer 2: this checkout ----

venv=$root/.venv
linked=$venv/.multiverse-linked
# Installed is what stands above the tools' settings in pyproject.toml; a change of those
# must not touch a `.venv` that something may be running from.
installed() { sed '/^\[tool\.ruff\]/,$d' "$root/pyproject.toml"; }
link=$(printf '%s\n' "$root" "$env" "$tag" "$(installed | digest - "$0")")

is_linked() { [[ -f $linked && $(<"$linked") == "$link" && -x $venv/bin/python ]]; }

link_checkout() {
    rm -rf -- "$venv"
    "$env/bin/python" -m venv --without-pip "$venv"
    # addsitedir, not a bare path: the environment's own .pth files count as well. The
    # name sorts behind the editable install's file, so this checkout is found first.
    "$venv/bin/python" - "$env" <<'PYTHON'
import sys
import sysconfig
from pathlib import Path

shared = sysconfig.get_path("purelib", vars={"base": sys.argv[1], "platbase": sys.argv[1]})
own = Path(sysconfig.get_path("purelib"))
(own / "zz_multiverse_env.pth").write_text(f"import site; site.addsitedir({shared!r})\n")
PYTHON
    "$venv/bin/python" -m pip install --quiet --no-input --disable-pip-version-check \
        --no-index --no-deps --no-build-isolation --editable "$root"
    # The commands a contributor types, run by this checkout's interpreter.
    local tool
    for tool in sglang pytest mypy; do
        sed "1s|.*|#!$venv/bin/python|" "$env/bin/$tool" >"$venv/bin/$tool"
        chmod +x "$venv/bin/$tool"
    done
    ln -sf "$env/bin/ruff" "$venv/bin/ruff"
    printf '%s\n' "$link" >"$linked"
}

if ! is_linked; then
    exec 8>"$root/.venv.lock"
    flock 8
    if ! is_linked; then
        link_checkout
        say "linked $venv to $env"
    fi
    exec 8>&-
fi

# Compiled from the checkout's sources, or taken from the cache; see the script.
"$venv/bin/python" -I "$root/kernels/cpu/build.py"
