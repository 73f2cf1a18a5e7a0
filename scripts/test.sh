#!/usr/bin/env bash
# The test suite. With arguments, as pytest takes them, those tests; without, all of them, in two
# lanes at the same time, which take about as long as each other.
set -uo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
pytest=(.venv/bin/python -m pytest)

[[ $# -gt 0 ]] && exec "${pytest[@]}" "$@"

# What asks servers partly waits for them; so its lane takes these as well.
also=(test/attention test/kernels test/training)

said=$(mktemp)
trap 'kill $other 2>/dev/null; rm -f "$said"' EXIT
"${pytest[@]}" -m "not server" "${also[@]/#/--ignore=}" >"$said" 2>&1 &
other=$!
"${pytest[@]}" -m server
server_code=$?
"${pytest[@]}" -m "not server" "${also[@]}"
also_code=$?
echo
echo "======== the other tests, which ran at the same time ========"
tail -n +1 -f --pid=$other "$said"
wait $other
other_code=$?
exit $((server_code | also_code | other_code))
