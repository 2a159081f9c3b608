#!/usr/bin/env bash
# Run `ansible-test sanity` on a copy of the tree: it requires .../ansible_collections/glm/fleet as its directory.
set -euo pipefail
cd "$(dirname "$0")/.."
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
target=$work/ansible_collections/glm/fleet
mkdir -p "$target"
# The root has a link to each folder of inventories, of the same name.
mapfile -t links < <(ls inventories)
# What the collection ships, and what it may ignore; the rest serves a checkout only (ruff and mypy read it).
git ls-files -z --cached --others --exclude-standard -- . ':!.collections' "${links[@]/#/:!}" \
    ':!simulator' ':!tests/[!s]*' ':!tools' ':!scripts' ':!molecule' ':!inventories' ':!conftest.py' ':!setup.py' |
    xargs -0 sh -c 'for f; do [ ! -e "$f" ] || printf "%s\0" "$f"; done' sh | tar --null -T - -cf - | tar -C "$target" -xf -
cd "$target"
git init -q && git add -A

# ansible-test puts pip into its virtual environments with a script that it downloads. Python carries pip itself
# (ensurepip), so a file of that name is written here and the run needs nothing but the package index.
export HOME=$work/home
mkdir -p "$HOME/.ansible/test/cache"
python - <<'PY'
import pathlib, re
from importlib.util import find_spec
source = pathlib.Path(find_spec("ansible_test").origin).parent / "_internal/python_requirements.py"
for version in re.findall(r"pip='([0-9.]+)'", source.read_text()):
    name = f"get_pip_{version.replace('.', '_')}.py"
    script = "import ensurepip\nensurepip.bootstrap(default_pip=True)\n"
    (pathlib.Path.home() / ".ansible/test/cache" / name).write_text(script)
PY
ansible-test sanity --color no --venv --python "$(python -c 'import sys; print("%d.%d" % sys.version_info[:2])')" "$@"
