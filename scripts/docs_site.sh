#!/usr/bin/env bash
# Build the documentation site: the pages of docs/ and the reference of every plugin and role, by antsibull-docs.
#   scripts/docs_site.sh [DIRECTORY]       (default: build/site)
# A broken link, a page that no table of contents names or a role that cannot be rendered is an error.
set -euo pipefail
cd "$(dirname "$0")/.."
out=${1:-build/site}
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
mkdir -p "$out" "$work/source/reference"
cp docs/docsite/conf.py docs/docsite/index.md galaxy.yml README.md CONTRIBUTING.md SECURITY.md CHANGELOG.md LICENSE "$work/source"
cp -r docs "$work/source/docs"
rm -r "$work/source/docs/docsite"
# What pages link to: the roles' own pages, that of the tests, the catalogue, the command lines of docs/sources.md.
git ls-files -z --cached --others --exclude-standard -- 'roles/*/README.md' tests/README.md catalog 'tests/*/golden/*' |
    xargs -0 cp --parents -t "$work/source"
chmod -R go-w "$work/source"
ANSIBLE_COLLECTIONS_PATH="$PWD/.collections" antsibull-docs collection --use-current --squash-hierarchy \
    --cleanup everything --fail-on-error --dest-dir "$work/source/reference" glm.fleet
sphinx-build -q -W --keep-going -b html -c "$work/source" "$work/source" "$out"
echo "docs_site: $out/index.html"
