#!/usr/bin/env bash
# Make or refresh a virtual environment from pinned requirements.
#   scripts/venv.sh DIRECTORY REQUIREMENTS [PYTHON_VERSION ...]
# Takes the first of these Python versions that the machine has; without a version, any Python from 3.11 on. Of one version the
# distribution's own comes first: it is compiled with all optimizations, which pyenv leaves out (a quarter of the time).
# Does nothing when DIRECTORY already satisfies REQUIREMENTS.
set -euo pipefail

UV=0.13.9

directory=$1
requirements=$2
shift 2
versions=("$@")
[ ${#versions[@]} -gt 0 ] || versions=(3.13 3.12 3.11 3.14)

find_python() {
    local version candidate
    for version in "${versions[@]}"; do
        for candidate in "/usr/bin/python$version" "$(command -v "python$version" || true)" \
            "${PYENV_ROOT:-$HOME/.pyenv}"/versions/"$version".*/bin/python; do
            # A pyenv shim exists for versions that are not active; only one that runs counts.
            if [ -n "$candidate" ] && [ -x "$candidate" ] && "$candidate" -c 'import venv, ensurepip' 2>/dev/null; then
                echo "$candidate"
                return
            fi
        done
    done
    return 1
}

# One stamp for each requirements file that the environment satisfies; the larger set includes requirements.txt.
digest() { cat "$@" | sha256sum | cut -d' ' -f1; }
stamp=$directory/.stamp-$(basename "$requirements")
base_stamp=$directory/.stamp-requirements.txt
wanted=$(digest "$requirements" requirements.txt)
base_wanted=$(digest requirements.txt requirements.txt)
if [ -f "$stamp" ] && [ "$(cat "$stamp")" = "$wanted" ]; then
    exit 0
fi
if [ ! -f "$base_stamp" ]; then
    if ! python=$(find_python); then
        echo "venv: no Python of version ${versions[*]} with venv support was found; on Debian or Ubuntu:" \
            "sudo apt-get install python3 python3-venv" >&2
        exit 3
    fi
    echo "venv: making $directory with $("$python" --version)"
    "$python" -m venv --clear "$directory"
fi
echo "venv: installing $requirements into $directory"
pip=("$directory/bin/pip" --disable-pip-version-check install --progress-bar=off)
with_progress=("$(dirname "$0")/with_progress.sh" venv)
# uv needs a fifth of pip's processor time, but does not read pip's configuration: with an index of your own there, and for
# what uv cannot install, it is pip.
if "$directory/bin/pip" config list | grep -qE "(^|[.:])index-url="; then
    "${with_progress[@]}" "${pip[@]}" -r "$requirements"
elif ! {
    "${with_progress[@]}" "${pip[@]}" "uv==$UV" &&
        "${with_progress[@]}" "$directory/bin/uv" pip install --python "$directory/bin/python" -r "$requirements"
}; then
    echo "venv: uv could not install it, as it says above; installing with pip" >&2
    "${with_progress[@]}" "${pip[@]}" -r "$requirements"
fi
echo "$base_wanted" >"$base_stamp"
echo "$wanted" >"$stamp"
