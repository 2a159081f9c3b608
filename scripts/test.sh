#!/usr/bin/env bash
# Run the test stages; end with a table of them, the slowest tests, the skips and the line
# "N passed, N failed, N skipped".
#   scripts/test.sh all|lint|unit|playbooks|cores|engines|integration|molecule|benchmark [pytest arguments...]
# Called by `make`; expects .venv (requirements-dev.txt). Continues after a failed stage so that one run shows everything.
set -uo pipefail
cd "$(dirname "$0")/.."
stage=${1:-all}
shift || true
pytest_arguments=("$@")

root=$PWD
out=$root/tests/output
venv=$root/.venv
next_venv=$root/.venv-next
table=$out/table.tsv
export PATH="$venv/bin:$PATH" ANSIBLE_CONFIG="$root/ansible.cfg" PYTHONDONTWRITEBYTECODE=
rm -rf "$out"
mkdir -p "$out"
touch "$table"

# What runs Ansible, and modules in its harness; the rest is Python that no ansible-core changes.
touches_ansible=(tests/unit/modules tests/playbooks/test_*.py tests/playbooks/{inventory,lambda_api,modules,planner}
    tests/playbooks/benchmark/test_playbook.py)

# A file, because stages run side by side.
note() { # name, passed, failed, skipped, seconds, seconds of processor time, reason of a skip
    printf '%s\t%d\t%d\t%d\t%d\t%s\t%s\n' "$@" >>"$table"
}

file_name() { echo "$1" | tr -c 'a-zA-Z0-9\n' '_'; }

# Run a command with its output in a log; sets status, seconds and cpu (the processor time of its processes).
measure() { # log, command...
    local log=$1 start=$SECONDS TIMEFORMAT='%U %S'
    shift
    { time "$@" >"$log" 2>&1; } 2>"$log.time"
    status=$?
    seconds=$((SECONDS - start))
    cpu=$(awk 'END {print $1 + $2}' "$log.time")
    rm -f "$log.time"
}

# One check that passes or fails as a whole; what it prints is shown only when it fails.
check() { # name, command...
    local name=$1 status seconds cpu log
    log=$out/$(file_name "$1").log
    shift
    measure "$log" "$@"
    if [ "$status" -eq 0 ]; then
        note "$name" 1 0 0 "$seconds" "$cpu" ""
        echo "ok      $name ($seconds s)"
    else
        note "$name" 0 1 0 "$seconds" "$cpu" ""
        echo "FAILED  $name: $*"
        sed 's/^/        /' "$log"
    fi
}

# A run of pytest. Its output is in a log while it runs, and is shown when a test failed.
suite() { # name, python, pytest arguments...
    local name=$1 python=$2 status seconds cpu passed failed skipped log
    log=$out/$(file_name "$name").log
    shift 2
    echo "==      $name: follow it with tail -f ${log#"$root/"}"
    PATH="$(dirname "$python"):$PATH" measure "$log" "$python" -m pytest --junitxml="${log%.log}.xml" \
        "$@" "${pytest_arguments[@]}"
    IFS=$'\t' read -r passed failed skipped < <("$python" scripts/run_report.py --counts "${log%.log}.xml")
    # pytest can fail without a failed test (collection error, nothing collected): that is a failure too.
    if [ "$status" -ne 0 ] && [ "$failed" -eq 0 ]; then failed=1; fi
    note "$name" "$passed" "$failed" "$skipped" "$seconds" "$cpu" ""
    if [ "$failed" -eq 0 ]; then
        echo "ok      $name: $passed passed, $skipped skipped ($seconds s)"
    else
        echo "FAILED  $name"
        sed 's/^/        /' "$log"
    fi
}

core_version() { "$1" -c 'from ansible.release import __version__ as v; print(".".join(v.split(".")[:2]))'; }

# The second ansible-core version, in next_python; empty where the machine has one Python only.
next_python=
prepare_next() {
    local own
    own=$(core_version "$venv/bin/python")
    flock "$out/next.lock" scripts/venv.sh "$next_venv" requirements-dev.txt 3.12 3.13 3.14 >"$out/next.log" 2>&1
    case $? in
    0) if [ "$(core_version "$next_venv/bin/python")" != "$own" ]; then next_python=$next_venv/bin/python; fi ;;
    3) note "$1, second ansible-core" 0 0 1 0 0 "only $own is here: the other needs Python 3.12 or newer" ;;
    *)
        note "$1: environment for the second ansible-core" 0 1 0 0 0 ""
        cat "$out/next.log"
        ;;
    esac
}

quick_lint() {
    check "ruff" ruff check .
    check "ruff format" ruff format --check .
    check "mypy" scripts/mypy.sh
    check "yamllint" scripts/yamllint.sh
    check "changelog fragments" antsibull-changelog lint
}

# Runs of Ansible keep for each other what each would make anew: tests/README.md.
keeping() { # check or suite...
    local -x GLM_COMPILED=$out/compiled PYTHONPATH=$root/tests/compiled
    # Hosts keep what modules compile there, too. There not all are root.
    local -x GLM_REHEARSAL_MOUNTS="$GLM_COMPILED:/var/cache/glm-compiled $PYTHONPATH:/opt/glm-compiled:ro
        $PYTHONPATH/on_hosts.pth:/usr/lib/python3/dist-packages/glm-compiled.pth:ro"
    mkdir -p -m 1777 "$GLM_COMPILED"
    "$@"
}

# `make lint` also runs those of ansible-test's checks that take minutes, or that quick_lint makes with stricter settings.
SANITY_LEFT_OUT=(--skip-test pylint --skip-test pep8 --skip-test yamllint --skip-test changelog)

slow_lint() { # arguments of ansible-test...
    check "ansible-test sanity" scripts/sanity.sh "$@"
    keeping check "ansible-lint, profile production" ansible-lint --offline --strict -q
    keeping check "documentation of roles and plugins" scripts/docs_lint.sh
    check "a renamed key of the plan is an error of mypy" "$venv/bin/python" scripts/plan_keys_check.py
    keeping check "collection builds, installs and imports; wheel installs" scripts/package_check.sh
    keeping check "documentation site" scripts/docs_site.sh "$out/site"
}

quicker_lint() { slow_lint "${SANITY_LEFT_OUT[@]}"; }

unit() { suite "unit" "$venv/bin/python" -q -n 2 --dist worksteal tests/unit; }

engines() { suite "engine command lines" "$venv/bin/python" -q -n 2 tests/engines; }

# `make engines` tries twice as many versions.
few_engines() { GLM_ENGINE_MATRIX=few engines; }

# All that touches Ansible on the second ansible-core; `make test` runs the first test of each file there.
cores() {
    prepare_next cores
    [ -n "$next_python" ] || return 0
    keeping suite "ansible-core $(core_version "$next_python"), whole" "$next_python" -q -n 4 --dist worksteal \
        -m "not one_core" --first-cases "${touches_ansible[@]}"
}

playbooks() {
    # Four workers: half of their time they wait for servers, processes and clocks.
    keeping suite "playbooks, ansible-core $(core_version "$venv/bin/python")" "$venv/bin/python" -q -n 4 --dist worksteal tests/playbooks
    prepare_next playbooks
    [ -z "$next_python" ] || keeping suite "playbooks, ansible-core $(core_version "$next_python")" "$next_python" -q -n 4 \
        --dist worksteal -m "not one_core" --first-cases --first-tests "${touches_ansible[@]}"
}

# Each worker has a world of its own. A file's tests stay in one, because they build on one another.
integration() { keeping suite "integration" "$venv/bin/python" -v -n 2 --dist loadfile \
    --no-loadscope-reorder tests/integration; }

# With two ansible-cores, one installs on the hosts of a scenario and the other takes them over; they take turns.
molecule() { # scenarios...
    local scenario first=$venv/bin second
    prepare_next molecule
    second=${next_python:+$(dirname "$next_python")}
    for scenario in "$@"; do
        if [ -z "$second" ]; then
            keeping check "molecule $scenario, ansible-core $(core_version "$first/python")" scripts/molecule.sh "$scenario"
            continue
        fi
        keeping check "molecule $scenario, ansible-core $(core_version "$first/python"), then $(core_version "$second/python")" \
            scripts/molecule.sh "$scenario" cores "$first" "$second"
        read -r first second <<<"$second $first"
    done
}

scenarios() { for scenario in molecule/*/molecule.yml; do basename "$(dirname "$scenario")"; done; }

# `make roll-proof` rolls fleets under load, for hours.
benchmark() {
    local script
    for script in tests/benchmark/*.py; do
        [ "$script" != tests/benchmark/roll_under_load.py ] || continue
        check "$script" "$venv/bin/python" "$script"
        cat "$out/$(file_name "$script").log"
    done
}

# Computing tests have a lower priority than those with hosts: a host without CPU time would look unhealthy.
desk() { # stages...
    local each
    renice -n 10 -p "$BASHPID" >/dev/null
    for each in "$@"; do "$each"; done
}

# What hosts and engines are made of: mostly downloads. Whoever needs it waits for it, and says why it failed. So it goes first.
materials() {
    scripts/install_system_packages.sh && "$venv/bin/python" -m simulator build
} >"$out/materials.log" 2>&1

# First the stages that fail fast. Then those with hosts, in two groups, in parallel with those that compute.
everything() {
    local half
    set -m
    materials & lanes+=($!)
    set +m
    quick_lint
    unit
    scripts/install_system_packages.sh
    mapfile -t half < <(scenarios)
    # Each in a process group of its own, to be ended with its children whatever signals they ignore.
    set -m
    integration & lanes+=($!)
    molecule "${half[@]:0:${#half[@]}/2}" & lanes+=($!)
    molecule "${half[@]:${#half[@]}/2}" & lanes+=($!)
    desk playbooks & lanes+=($!)
    # One process at a time: after all others they would leave a core idle for minutes.
    desk quicker_lint few_engines & lanes+=($!)
    set +m
    wait "${lanes[@]}"
}

lanes=()
# Interrupted like with Ctrl-C, so that hosts are removed. Programs that ignore that, as background programs do, are ended a
# minute later.
interrupted() {
    local signal lane again
    trap - INT TERM
    for signal in INT TERM; do
        for lane in "${lanes[@]}"; do kill -"$signal" -- "-$lane" 2>/dev/null; done
        for ((again = 0; again < 60; again++)); do
            for lane in "${lanes[@]}"; do kill -0 -- "-$lane" 2>/dev/null && sleep 1 && continue 2; done
            exit 130
        done
    done
    exit 130
}
trap interrupted INT TERM
case $stage in
all) everything ;;
lint)
    quick_lint
    slow_lint
    ;;
unit | playbooks | cores | engines | benchmark) "$stage" ;;
integration)
    scripts/install_system_packages.sh
    integration
    ;;
molecule)
    scripts/install_system_packages.sh
    # shellcheck disable=SC2046  # one word for each scenario
    molecule $(scenarios)
    ;;
*)
    echo "unknown stage: $stage" >&2
    exit 2
    ;;
esac

echo
"$venv/bin/python" scripts/run_report.py "$out"
