#!/usr/bin/env bash
# The test suite. With arguments, as pytest takes them, those tests; without, all of them, in two
# lanes at the same time: what asks servers mostly waits for them, and leaves a core to the rest.
set -uo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
pytest=(.venv/bin/python -m pytest)

[[ $# -gt 0 ]] && exec "${pytest[@]}" "$@"

said=$(mktemp)
trap 'kill $other 2>/dev/null; rm -f "$said"' EXIT
"${pytest[@]}" -m "not server" >"$said" 2>&1 &
other=$!
"${pytest[@]}" -m server
server_code=$?
echo
echo "======== the tests without a server, which ran at the same time ========"
tail -n +1 -f --pid=$other "$said"
wait $other
other_code=$?
exit $((server_code > other_code ? server_code : other_code))
