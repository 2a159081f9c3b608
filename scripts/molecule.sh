#!/usr/bin/env bash
# Run one molecule scenario against systemd hosts that it creates and destroys.
#   scripts/molecule.sh SCENARIO [molecule subcommand]
#   scripts/molecule.sh SCENARIO cores BIN BIN   # bin folders of two ansible-cores: the first installs; the second, on the
#                                                # same hosts, must find nothing to change, and verifies
set -euo pipefail
cd "$(dirname "$0")/.."
# Molecule must find glm.fleet through the link, and must not pick up the checkout's inventory settings.
export ANSIBLE_COLLECTIONS_PATH="$PWD/.collections"
scenario=$1
common=(--base-config .config/molecule/config.yml)
if [ "${2:-}" != cores ]; then exec molecule "${common[@]}" "${2:-test}" --scenario-name "$scenario"; fi

part() { # bin folder, part, arguments...
    PATH="$1:$PATH" molecule "${common[@]}" --base-config ".config/molecule/$2.yml" "${@:3}" --scenario-name "$scenario"
}
trap 'part "$4" take_over destroy' EXIT
part "$3" install test --destroy never
part "$4" take_over test --destroy never
