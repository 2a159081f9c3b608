#!/usr/bin/env bash
# Run the test stages and end with a table of them and the line "N passed, N failed".
#   scripts/test.sh all|lint|unit|playbooks|engines|integration|molecule|benchmark
# Called by `make`; expects .venv (requirements-dev.txt). Goes on after a failed stage so that one run shows everything.
set -uo pipefail
cd "$(dirname "$0")/.."
stages=${1:-all}
# The last two wait for hosts most of the time, so they wait side by side.
[ "$stages" != all ] || stages="lint unit playbooks engines hosts"

root=$PWD
out=$root/tests/output
venv=$root/.venv
next_venv=$root/.venv-next
table=$out/table
export PATH="$venv/bin:$PATH" ANSIBLE_CONFIG="$root/ansible.cfg" PYTHONDONTWRITEBYTECODE=1
rm -rf "$out"
mkdir -p "$out"
touch "$table"

# A file, because stages may run side by side.
note() { # name, passed, failed, seconds
    printf '%-44s %5d passed %4d failed %6d s\n' "$1" "$2" "$3" "$4" >>"$table"
}

file_name() { echo "$1" | tr -c 'a-zA-Z0-9\n' '_'; }

# One check that passes or fails as a whole; what it prints is shown only when it fails.
check() { # name, command...
    local name=$1 start=$SECONDS log
    log=$out/$(file_name "$1").log
    shift
    if "$@" >"$log" 2>&1; then
        note "$name" 1 0 $((SECONDS - start))
        echo "ok      $name ($((SECONDS - start)) s)"
    else
        note "$name" 0 1 $((SECONDS - start))
        echo "FAILED  $name: $*"
        sed 's/^/        /' "$log"
    fi
}

suite() { # name, python, pytest arguments...
    local name=$1 python=$2 start=$SECONDS report status
    shift 2
    report=$out/$(file_name "$name").xml
    echo "== $name"
    PATH="$(dirname "$python"):$PATH" "$python" -m pytest -q --junitxml="$report" "$@"
    status=$?
    # shellcheck disable=SC2046  # two numbers, meant to split
    set -- $("$python" scripts/junit_counts.py "$report")
    # pytest can fail without a failed test (collection error, nothing collected): that is a failure too.
    if [ $status -ne 0 ] && [ "${2:-0}" -eq 0 ]; then set -- "${1:-0}" 1; fi
    note "$name" "${1:-0}" "${2:-1}" $((SECONDS - start))
}

core_version() { "$1" -c 'from ansible.release import __version__ as v; print(".".join(v.split(".")[:2]))'; }

# The second ansible-core version, in next_python; empty where the machine has one Python only.
next_python=
prepare_next() {
    scripts/venv.sh "$next_venv" requirements-dev.txt 3.12 3.13 3.14
    case $? in
    0)
        if [ "$(core_version "$next_venv/bin/python")" != "$(core_version "$venv/bin/python")" ]; then
            next_python=$next_venv/bin/python
        fi
        ;;
    3) echo "only ansible-core $(core_version "$venv/bin/python") is tested here: the other needs Python 3.12 or newer" ;;
    *) note "environment for the second ansible-core" 0 1 0 ;;
    esac
}

if [[ " $stages " =~ \ (playbooks|molecule|hosts)\  ]]; then
    prepare_next
fi

run_stage() {
    local python scenario script name beside
    case $1 in
    lint)
        check "ruff" ruff check .
        check "ruff format" ruff format --check .
        check "mypy: plugin_utils, module_utils, simulator" scripts/mypy.sh
        check "yamllint" scripts/yamllint.sh
        check "documentation of roles and plugins" scripts/docs_lint.sh
        check "ansible-lint, profile production" ansible-lint --offline --strict -q
        check "ansible-test sanity" scripts/sanity.sh
        check "collection builds, installs and imports; wheel installs" scripts/package_check.sh
        check "documentation site" scripts/docs_site.sh "$out/site"
        check "changelog fragments" antsibull-changelog lint
        ;;
    unit)
        suite "unit" "$venv/bin/python" -n 2 --dist worksteal tests/unit
        ;;
    playbooks)
        for python in "$venv/bin/python" $next_python; do
            suite "playbooks, ansible-core $(core_version "$python")" "$python" -n 2 --dist worksteal tests/playbooks
        done
        ;;
    engines)
        suite "engine command lines" "$venv/bin/python" -n 2 tests/engines
        ;;
    hosts)
        scripts/install_system_packages.sh
        run_stage molecule >"$out/molecule.log" 2>&1 &
        beside=$!
        run_stage integration
        echo "== molecule, which ran beside it"
        wait "$beside"
        cat "$out/molecule.log"
        ;;
    integration)
        scripts/install_system_packages.sh
        suite "integration" "$venv/bin/python" -v tests/integration
        ;;
    molecule)
        scripts/install_system_packages.sh
        for python in "$venv/bin/python" $next_python; do
            for scenario in molecule/*/molecule.yml; do
                name=$(basename "$(dirname "$scenario")")
                check "molecule $name, ansible-core $(core_version "$python")" \
                    env PATH="$(dirname "$python"):$PATH" scripts/molecule.sh "$name"
            done
        done
        ;;
    benchmark)
        for script in tests/benchmark/*.py; do
            check "$script" "$venv/bin/python" "$script"
            cat "$out/$(file_name "$script").log"
        done
        ;;
    *)
        echo "unknown stage: $1" >&2
        exit 2
        ;;
    esac
}

for stage in $stages; do run_stage "$stage"; done

echo
cat "$table"
echo
awk '{for (i = 2; i <= NF; i++) {if ($i == "passed") passed += $(i - 1); if ($i == "failed") failed += $(i - 1)}}
     END {print passed + 0 " passed, " failed + 0 " failed"; exit failed > 0}' "$table"
