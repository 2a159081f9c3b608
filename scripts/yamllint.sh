#!/usr/bin/env bash
# Lint the YAML files that belong to the project.
set -euo pipefail
cd "$(dirname "$0")/.."
git ls-files -z --cached --others --exclude-standard -- '*.yml' '*.yaml' | xargs -0 yamllint --strict
