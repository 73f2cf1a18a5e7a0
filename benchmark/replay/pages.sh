#!/usr/bin/env bash
# Tables and figures of the committed results, into README.md and docs/performance.md.
set -euo pipefail
cd "$(dirname "$0")/../.."
results=(benchmark/results/replay-tiny.json benchmark/results/replay-bundled.json)
report() { .venv/bin/python benchmark/replay/report.py "${results[@]}" "$@"; }
report --figures docs/performance --into README.md > /dev/null
report --into docs/performance.md --details > /dev/null
