#!/usr/bin/env bash
# Run a long, silent command, and print every ten seconds that it is still running, with its last line of output.
#   scripts/with_progress.sh TITLE COMMAND [ARGUMENT ...]
# Its output is shown only when it fails; the exit status is the command's.
set -uo pipefail
title=$1
shift
log=$(mktemp)
trap 'rm -f "$log"' EXIT
"$@" >"$log" 2>&1 </dev/null &
command=$!
trap 'kill "$command" 2>/dev/null; exit 130' INT TERM
SECONDS=0
while kill -0 "$command" 2>/dev/null; do
    sleep 0.2
    if [ $((SECONDS / 10)) -gt "${shown:-0}" ] && kill -0 "$command" 2>/dev/null; then
        shown=$((SECONDS / 10))
        echo "    $title: $SECONDS s so far, $(tail -c 4096 "$log" | tr '\r' '\n' | grep -v '^ *$' | tail -n 1 | cut -c 1-100)" >&2
    fi
done
wait "$command"
status=$?
[ $status -eq 0 ] || cat "$log" >&2
exit $status
