#!/usr/bin/env bash
# Build the collection and the wheel from what git tracks, install each into an empty place, and let ansible-core find
# the playbook, the inventory plugin and a role in both, from a directory that is not the checkout. Galaxy must take it.
set -euo pipefail
cd "$(dirname "$0")/.."
python=$PWD/.venv/bin/python
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
unset ANSIBLE_CONFIG
git ls-files -z --cached --others --exclude-standard | xargs -0 sh -c 'for f; do [ ! -e "$f" ] && [ ! -L "$f" ] || printf "%s\0" "$f"; done' sh |
    tar --null -T - -cf - | (mkdir "$work/source" && tar -C "$work/source" -xf -)

# Nothing of this machine's own: a collection under ~/.ansible would be found first.
export HOME=$work/home
mkdir "$HOME"

found() { # where it must be found, command prefix...
    local where=$1
    shift
    cd "$work"
    "$@" ansible-doc -t inventory glm.fleet.lambda_cloud >/dev/null
    "$@" ansible-doc -t role glm.fleet.serve >/dev/null
    "$@" ansible-playbook --syntax-check -i localhost, glm.fleet.deploy_glm51 | tee syntax.txt
    grep -q "^playbook: $where/.*ansible_collections/glm/fleet/playbooks/deploy_glm51.yml" syntax.txt
    "$@" ansible-playbook -i localhost, glm.fleet.plan -e glm_accelerator=B200 -e glm_accelerator_count=8 >plan.txt
    grep -q 'glm-5.1-fp8' plan.txt
    echo "found in $where"
    cd - >/dev/null
}

(cd "$work/source" && ansible-galaxy collection build --output-path "$work/dist")
# From elsewhere: the checkout's ansible.cfg already finds glm.fleet, and nothing would be installed.
(cd "$work" && ansible-galaxy collection install --offline --force -p "$work/collections" "$work"/dist/glm-fleet-*.tar.gz)
if tar -tzf "$work"/dist/glm-fleet-*.tar.gz | grep -E "^(\.|$(ls "$work/source/inventories" | sed 's/$/\$/' | paste -sd '|'))"; then
    echo "the collection tarball has files that only a checkout needs" >&2
    exit 1
fi
dangling=$(find "$work/collections" -xtype l)
[ -z "$dangling" ] || { echo "the collection has dangling links: $dangling" >&2; exit 1; }
# Galaxy's own importer; lint is a check of its own, and the collection is found where Galaxy would have put it.
(cd "$work" && env PATH="$(dirname "$python"):$PATH" GALAXY_IMPORTER_RUN_ANSIBLE_LINT=false \
    python -m galaxy_importer.main "$work"/dist/glm-fleet-*.tar.gz)
found "$work/collections" env ANSIBLE_COLLECTIONS_PATH="$work/collections"

"$python" -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet "$work/source"
found "$work/venv" env -u ANSIBLE_COLLECTIONS_PATH PATH="$work/venv/bin:$PATH"

# A folder to start from, made by the command of the wheel, with what it needs in it.
cd "$work"
venv=(env -u ANSIBLE_COLLECTIONS_PATH PATH="$work/venv/bin:$PATH")
"${venv[@]}" glm-fleet init "$work/fleet" >/dev/null
if "${venv[@]}" glm-fleet init "$work/fleet" 2>again.txt; then
    echo "glm-fleet init wrote over a folder that it made before" >&2
    exit 1
fi
grep -q 'has ansible.cfg, .* already' again.txt
cd "$work/fleet"
"${venv[@]}" ansible-playbook glm.fleet.plan -e glm_accelerator=B200 -e glm_accelerator_count=8 >plan.txt 2>&1
grep -q 'glm-5.1-fp8' plan.txt
if grep -A 2 WARNING plan.txt >&2; then
    exit 1
fi
echo 'glm_served_model_name: name-of-the-folder' >>group_vars/all.yml
printf 'glm_fleet:\n  hosts:\n    a: {ansible_connection: local}\n' >hosts.yml
"${venv[@]}" ansible-playbook glm.fleet.plan -i hosts.yml -e glm_accelerator=B200 -e glm_accelerator_count=8 >plan.txt
grep -q 'name-of-the-folder' plan.txt
echo "the folder of glm-fleet init works"
