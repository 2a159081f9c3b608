#!/usr/bin/env bash
# Type-check every Python file of the product. The collection is checked under the name it is imported by.
set -euo pipefail
cd "$(dirname "$0")/.."
export MYPYPATH=.collections:.
fleet=.collections/ansible_collections/glm/fleet
mypy "$fleet"/plugins/{plugin_utils,module_utils,action,modules,inventory,callback,lookup,filter,doc_fragments}
mypy simulator glm_fleet tools conftest.py setup.py scripts/*.py
# Each is a program of its own on a host.
for script in roles/*/files/*.py; do mypy --no-incremental "$script"; done
