#!/usr/bin/env bash
# The committed run: both models, at most twelve minutes, on a machine that does nothing else.
#
#   benchmark/replay/run.sh [--note TEXT] [further options of throughput.py]
#
# TRACES names the real traces if they are not beside the checkout; THREADS the threads of a server
# of the larger model (2); TINY_MINUTES and BUNDLED_MINUTES how long each may take (what does not fit
# is left out). Tables and figures of README.md and docs/performance.md follow from it.
set -euo pipefail
cd "$(dirname "$0")/../.."
python=.venv/bin/python
results=benchmark/results
more=("$@")
if [ -n "${TRACES:-}" ]; then more+=(--traces "$TRACES"); fi

run() {
  $python benchmark/throughput.py "$@" --open 0.25 0.5 0.75 0.95 ${more[@]+"${more[@]}"}
}

run --out $results/replay-tiny.json --branches 2 4 8 --length 48 --prompt 128 \
  --windows 4 --longest-window 600 --clients 1 4 16 64 2 8 32 128 --answers 4 --turns 2 \
  --minutes "${TINY_MINUTES:-4.8}" --open-minutes 0.8
run --out $results/replay-bundled.json --model-path bundled --threads "${THREADS:-2}" \
  --ways parallel plain client --branches 2 8 --length 32 --prompt 64 \
  --windows 4 --longest-window 250 --clients 1 4 16 64 2 8 32 128 --answers 2 --turns 2 \
  --minutes "${BUNDLED_MINUTES:-6.4}" --open-minutes 1.2
exec benchmark/replay/pages.sh
