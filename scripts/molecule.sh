#!/usr/bin/env bash
# Run one molecule scenario against systemd hosts that it creates and destroys.
#   scripts/molecule.sh SCENARIO [molecule subcommand]
set -euo pipefail
cd "$(dirname "$0")/.."
# Molecule must find glm.fleet through the link, and must not pick up the checkout's inventory settings.
export ANSIBLE_COLLECTIONS_PATH="$PWD/.collections"
exec molecule "${2:-test}" --scenario-name "$1"
