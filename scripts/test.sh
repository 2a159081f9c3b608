#!/usr/bin/env bash
# Run the test stages and end with a table of them and the line "N passed, N failed".
#   scripts/test.sh all|lint|unit|engines|integration|molecule|benchmark
# Called by `make`; expects .venv (requirements-dev.txt). Goes on after a failed stage so that one run shows everything.
set -uo pipefail
cd "$(dirname "$0")/.."
stages=${1:-all}
[ "$stages" != all ] || stages="lint unit engines integration molecule"

root=$PWD
out=$root/tests/output
venv=$root/.venv
next_venv=$root/.venv-next
passed=0
failed=0
table=()
export PATH="$venv/bin:$PATH" ANSIBLE_CONFIG="$root/ansible.cfg" PYTHONDONTWRITEBYTECODE=1
rm -rf "$out"
mkdir -p "$out"

note() { # name, passed, failed, seconds
    passed=$((passed + $2))
    failed=$((failed + $3))
    table+=("$(printf '%-44s %5d passed %4d failed %6d s' "$1" "$2" "$3" "$4")")
}

# One check that passes or fails as a whole; what it prints is shown only when it fails.
check() { # name, command...
    local name=$1 start=$SECONDS
    shift
    if "$@" >"$out/check.log" 2>&1; then
        note "$name" 1 0 $((SECONDS - start))
        echo "ok      $name ($((SECONDS - start)) s)"
    else
        note "$name" 0 1 $((SECONDS - start))
        echo "FAILED  $name: $*"
        sed 's/^/        /' "$out/check.log"
    fi
}

suite() { # name, python, pytest arguments...
    local name=$1 python=$2 start=$SECONDS report status
    shift 2
    report=$out/$(echo "$name" | tr -c 'a-zA-Z0-9\n' '_').xml
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

if [[ " $stages " =~ \ (unit|molecule)\  ]]; then
    prepare_next
fi

for stage in $stages; do
    case $stage in
    lint)
        check "ruff" ruff check .
        check "mypy: plugin_utils, module_utils, simulator" scripts/mypy.sh
        check "yamllint" scripts/yamllint.sh
        check "ansible-lint, profile production" ansible-lint --offline --strict -q
        check "ansible-test sanity" scripts/sanity.sh
        check "collection builds and installs; wheel installs" scripts/package_check.sh
        ;;
    unit)
        suite "unit, ansible-core $(core_version "$venv/bin/python")" "$venv/bin/python" -n 2 --dist worksteal tests/unit
        [ -z "$next_python" ] || suite "unit, ansible-core $(core_version "$next_python")" "$next_python" -n 2 --dist worksteal tests/unit
        ;;
    engines)
        suite "engine command lines" "$venv/bin/python" -n 2 tests/engines
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
            cat "$out/check.log"
        done
        ;;
    *)
        echo "unknown stage: $stage" >&2
        exit 2
        ;;
    esac
done

echo
printf '%s\n' "${table[@]}"
echo
echo "$passed passed, $failed failed"
[ "$failed" -eq 0 ]
