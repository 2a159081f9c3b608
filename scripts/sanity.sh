#!/usr/bin/env bash
# ansible-test sanity, on a copy of what git tracks: ansible-test wants .../ansible_collections/glm/fleet as its directory.
set -euo pipefail
cd "$(dirname "$0")/.."
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
target=$work/ansible_collections/glm/fleet
mkdir -p "$target"
# The links at the top level serve a checkout only.
git ls-files -z --cached --others --exclude-standard -- . ':!.collections' ':!lambda' ':!rehearsal' |
    xargs -0 sh -c 'for f; do [ ! -e "$f" ] || printf "%s\0" "$f"; done' sh | tar --null -T - -cf - | tar -C "$target" -xf -
cd "$target"
git init -q && git add -A
ansible-test sanity --color no --venv --python "$(python -c 'import sys; print("%d.%d" % sys.version_info[:2])')" "$@"
