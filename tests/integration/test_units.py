"""Every unit the collection can render passes ``systemd-analyze verify``, tricky arguments included."""

from __future__ import annotations

import itertools
import shutil
import subprocess
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from ansible_collections.glm.fleet.plugins.plugin_utils.catalog import load as catalog
from ansible_collections.glm.fleet.plugins.plugin_utils.plan import make as planner
from ansible_collections.glm.fleet.plugins.plugin_utils.serving import door
from tests.unit.serve.plans import REVISION, listening, nodes, plan, replicas, rocm, venv
from tests.unit.serve.render import render, render_host

pytestmark = pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="systemd-analyze is not installed")

CATALOG = catalog.load()
TEMPLATES = Path(__file__).parents[2] / "templates"
TRICKY = [
    "--speculative-config",
    '{"method":"mtp","num_speculative_tokens":3}',
    "--chat-template",
    "a path with spaces/and $HOME and %h and \\ and 'quotes'.jinja",
    "--stop",
    ";",
    "--note",
    "two\nlines\tand a tab",
    "",
]


def executable(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("#!/bin/sh\n", encoding="utf-8")
    path.chmod(0o755)


def analyze(folder: Path, *texts: str) -> subprocess.CompletedProcess[str]:
    """Verify units in a root of their own, so that this machine's units and programs are not used."""
    engines = [f"opt/glm/engines/{name}" for name in ("vllm-0.32.0/bin/vllm", "sglang-0.5.10/bin/python")]
    for program in ("usr/bin/docker", "usr/bin/python3", *engines):
        executable(folder / program)
    units = folder / "etc/systemd/system"
    units.mkdir(parents=True, exist_ok=True)
    names = [f"glm-serve-{number}.service" for number in range(len(texts))]
    for name, text in zip(names, texts, strict=True):
        (units / name).write_text(text, encoding="utf-8")
    command = ["systemd-analyze", "verify", "--man=no", "--recursive-errors=no", f"--root={folder}", *names]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def with_arguments(engine: str, extra: list[str]) -> dict[str, Any]:
    made = plan(engine)
    made["command"] += extra
    return made


@pytest.mark.parametrize("engine", ["vllm", "sglang"])
@pytest.mark.parametrize("extra", [[], TRICKY], ids=["plain", "tricky"])
def test_rendered_units_are_valid(engine: str, extra: list[str], tmp_path: Path) -> None:
    done = analyze(tmp_path, render("glm-serve.service", with_arguments(engine, extra)))
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize(
    "change",
    [
        {"listen": listening("fd00::5", 8000)},
        {"served_model_name": "100% glm"},
        {"replica": 3},
    ],
    ids=["ipv6", "percent", "replica 3"],
)
def test_other_plans_are_valid_too(change: dict[str, Any], tmp_path: Path) -> None:
    done = analyze(tmp_path, render("glm-serve.service", plan(**change)))
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize("engine", ["vllm", "sglang"])
@pytest.mark.parametrize("extra", [[], TRICKY], ids=["plain", "tricky"])
def test_units_for_rocm_and_for_replicas_are_valid(engine: str, extra: list[str], tmp_path: Path) -> None:
    for number, made in enumerate([rocm(engine), *replicas(2, engine)]):
        made["command"] += extra
        done = analyze(tmp_path / str(number), render("glm-serve.service", made))
        assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize("engine", ["vllm", "sglang"])
@pytest.mark.parametrize("extra", [[], TRICKY], ids=["plain", "tricky"])
def test_units_for_bare_metal_are_valid(engine: str, extra: list[str], tmp_path: Path) -> None:
    made = venv(engine)
    made["command"] += extra
    done = analyze(tmp_path, render("glm-serve.service", made))
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize("rank", [0, 1])
@pytest.mark.parametrize("made", [plan("sglang"), venv("sglang"), rocm()], ids=["container", "venv", "rocm"])
def test_units_of_several_hosts_are_valid(made: dict[str, Any], rank: int, tmp_path: Path) -> None:
    done = analyze(tmp_path, render("glm-serve.service", nodes(made, rank)))
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize(
    "made",
    [plan(), rocm(), nodes(plan(), 0), venv(), venv("sglang"), nodes(venv(), 1)],
    ids=["container", "rocm", "container of several", "venv", "venv sglang", "venv of several"],
)
def test_a_unit_is_exposed_by_two_of_ten_at_most(made: dict[str, Any], tmp_path: Path) -> None:
    """As systemd-analyze counts it. What is left open: devices, sockets and the docker client's rights as root."""
    unit = tmp_path / "glm-serve-0.service"
    unit.write_text(render("glm-serve.service", made), encoding="utf-8")
    command = ["systemd-analyze", "security", "--offline=true", "--no-pager", "--threshold=20", str(unit)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "Overall exposure level" in done.stdout


DOORS = {
    f"{name}-{port}": (name, port)
    for name, ports in {
        "glm-door": (8000, 443),
        "glm-door-usage": (8000,),
        "glm-door-certificate": (8000, 443),
        "glm-expiry": (8000,),
    }.items()
    for port in ports
}


PROXIES = {"https_proxy": "http://proxy.example:3128", "no_proxy": "127.0.0.1,localhost"}


@pytest.mark.parametrize("which", DOORS)
def test_a_unit_of_the_door_is_valid_and_exposed_by_two_of_ten_at_most(which: str, tmp_path: Path) -> None:
    name, port = DOORS[which]
    made = door.door([plan(listen=listening(port=port))])  # type: ignore[list-item]  # test plans are dicts
    units = []
    for kind in ("service", "timer"):
        if (TEMPLATES / f"{name}.{kind}.j2").exists():
            units.append(tmp_path / f"{name}.{kind}")
            units[-1].write_text(render_host(f"{name}.{kind}", door=made, proxies=PROXIES), encoding="utf-8")
    command = ["systemd-analyze", "verify", "--man=no", "--recursive-errors=no", *map(str, units)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    command = ["systemd-analyze", "security", "--offline=true", "--no-pager", "--threshold=20", str(units[0])]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0 and "Overall exposure level" in done.stdout, done.stdout + done.stderr


def test_every_unit_of_the_collection_is_measured() -> None:
    services = {path.name.removesuffix(".service.j2") for path in TEMPLATES.glob("*.service.j2")}
    assert services == {"glm-serve", *(name for name, _port in DOORS.values())}


def plans_of_recipes(runtime: str) -> Iterator[dict[str, Any]]:
    """Every plan of every published recipe: models, precisions, accelerators, profiles, replicas, hosts."""
    for recipe in CATALOG.recipes:
        cells = itertools.product(recipe.models, recipe.precisions, recipe.accelerators, recipe.profiles)
        for model, precision, accelerator, profile in cells:
            known = CATALOG.accelerators[accelerator].per_host
            host = max(recipe.count, known)
            whole = {"accelerator_count": recipe.count, "nodes": recipe.nodes}
            shared = {"accelerator_count": host, "replicas": host // recipe.count}
            for layout in [whole] if recipe.nodes > 1 or host == recipe.count else [whole, shared]:
                intent = planner.Intent(
                    model, accelerator, precision=precision, profile=profile, engine=recipe.engine, runtime=runtime,
                    listen_address="10.0.0.5", head_address="10.0.0.5" if recipe.nodes > 1 else None,
                    node_addresses=[f"10.0.0.{5 + rank}" for rank in range(recipe.nodes)] if recipe.nodes > 1 else (),
                    repository=f"acme/{model}" if precision == "int4" else None, **layout,
                )  # fmt: skip
                for rank in range(recipe.nodes):
                    yield from made_all(replace(intent, node_rank=rank))


def made_all(intent: planner.Intent) -> list[dict[str, Any]]:
    """The plans for an intent; none where the engine's default version cannot serve it (a recipe may need another)."""
    try:
        plans = planner.make_all(intent, CATALOG)
    except planner.PlanError:
        return []
    for made in plans:
        made["model"]["revision"] = REVISION
    return plans


@pytest.mark.parametrize("runtime", ["container", "venv"])
def test_units_of_every_recipe_are_valid(runtime: str, tmp_path: Path) -> None:
    """One call of systemd-analyze for all: unit ``glm-serve-<n>`` is the n-th different text."""
    units: dict[str, dict[str, Any]] = {}
    for made in plans_of_recipes(runtime):
        units.setdefault(render("glm-serve.service", made), made)
        assert render("glm-serve.secret", made).endswith(("=glm-test-key\n", ': "glm-test-key"\n'))
    kinds = Counter((made["engine"]["name"], made["accelerator"]["vendor"]) for made in units.values())
    ranks = Counter(made["node"]["rank"] for made in units.values() if made["node"]["count"] > 1)
    replicas_seen = Counter(made["replica"] for made in units.values() if made["replicas"] > 1)
    print(f"{runtime}: {len(units)} units, {dict(kinds)}, ranks {dict(ranks)}, replicas {dict(replicas_seen)}")
    all_kinds = set(itertools.product(("vllm", "sglang"), ("nvidia", "amd")))
    # SGLang publishes no wheels for ROCm: the planner refuses that runtime.
    assert len(units) >= 60 and set(kinds) == all_kinds - ({("sglang", "amd")} if runtime == "venv" else set())
    assert ranks[0] == ranks[1] > 0 and replicas_seen[1] > 0
    for engine in {made["runtime"]["path"] for made in units.values()} - {None}:
        for program in ("vllm", "python"):
            executable(tmp_path / engine.lstrip("/") / "bin" / program)
    done = analyze(tmp_path, *units)
    assert (done.returncode, done.stderr) == (0, "")


def test_the_check_can_fail(tmp_path: Path) -> None:
    broken = render("glm-serve.service", plan()).replace("Restart=on-failure", "Restrat=on-failure")
    done = analyze(tmp_path, broken)
    assert done.returncode != 0 and "Restrat" in done.stderr
