#!/usr/bin/env bash
# The test suite. With arguments, as pytest takes them, those tests; without, all of them, in three
# lanes at the same time: one asks servers, and for some of that time only waits for them.
set -uo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
pytest=(.venv/bin/python -m pytest)

[[ $# -gt 0 ]] && exec "${pytest[@]}" "$@"

apart=(test/attention test/bundled test/curator test/kernels test/training)
said=$(mktemp -d)
trap 'kill $(jobs -p) 2>/dev/null; rm -rf "$said"' EXIT

"${pytest[@]}" -m "not server" "${apart[@]}" >"$said/apart" 2>&1 &
apart_lane=$!
"${pytest[@]}" -m "not server" "${apart[@]/#/--ignore=}" >"$said/others" 2>&1 &
others_lane=$!
"${pytest[@]}" -m server
code=$?
for lane in "$apart_lane apart" "$others_lane others"; do
    read -r process name <<<"$lane"
    echo
    echo "======== another lane, which ran at the same time ========"
    tail -n +1 -f --pid="$process" "$said/$name"
    wait "$process" || code=$?
done
exit "$code"
