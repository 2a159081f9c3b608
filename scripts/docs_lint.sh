#!/usr/bin/env bash
# Check that the documentation of every role and plugin renders, and that what it refers to exists.
set -euo pipefail
cd "$(dirname "$0")/.."
antsibull-docs lint-collection-docs . --plugin-docs --validate-collection-refs all
