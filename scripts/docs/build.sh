#!/usr/bin/env bash
# Build the documentation with its own small environment, which is made at first use.
#
# Usage: scripts/docs/build.sh build|serve [mkdocs arguments]
#   build   strictly: a warning, such as a link to nowhere, is an error; into build/site
#   serve   on http://127.0.0.1:8000, renewed as files change
# Exit code 3: the environment could not be installed, and nothing was built.
# Variables: PYTHON, the interpreter to build with; XDG_CACHE_HOME, where the environment goes.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."

lock=scripts/docs/requirements.lock
python=${PYTHON:-$(command -v python3.11 || command -v python3)}
tag=$("$python" -c 'import sys; print("py%d.%d" % sys.version_info[:2])')
env=${XDG_CACHE_HOME:-$HOME/.cache}/sglang-multiverse/docs-$(sha256sum "$lock" | cut -c1-12)-$tag

make_environment() {
    local new
    new=$(mktemp -d "$env.XXXXXX") # appears whole or not at all, whoever else makes it
    if "$python" -m venv "$new" && "$new/bin/python" -m pip install --quiet --no-input \
        --disable-pip-version-check --progress-bar off --no-deps --requirement "$lock"; then
        mv -T "$new" "$env" 2>/dev/null || rm -rf -- "$new"
    else
        rm -rf -- "$new"
        return 1
    fi
}

if [[ ! -x $env/bin/python ]]; then
    mkdir -p "$(dirname "$env")"
    make_environment || { echo "docs: cannot install $lock" >&2; exit 3; }
fi

export NO_MKDOCS_2_WARNING=1 # an advertisement in the output
# Not its entry point, which names the folder that the environment was made in.
mkdocs=("$env/bin/python" -m mkdocs)
case ${1:-} in
    build) exec "${mkdocs[@]}" build --strict "${@:2}" ;;
    serve) exec "${mkdocs[@]}" serve --strict "${@:2}" ;;
    *) echo "usage: scripts/docs/build.sh build|serve [mkdocs arguments]" >&2; exit 2 ;;
esac
