#!/usr/bin/env bash
# Type-check the code that has no Ansible plugin interface. The collection is checked under the name it is imported by.
set -euo pipefail
cd "$(dirname "$0")/.."
fleet=.collections/ansible_collections/glm/fleet
MYPYPATH=.collections:. mypy "$fleet/plugins/plugin_utils" "$fleet/plugins/module_utils"
mypy simulator
