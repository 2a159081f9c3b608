"""Bare metal: the roles engine_venv, serve and verify against a host that boots systemd and has no Docker.

uv, its resolver, the hashes and systemd are real. The engine is the package ``toy-engine`` with two tiny dependencies
that stand in for torch and transformers, in a package index that the host itself serves. The tests build on one
another.
"""

from __future__ import annotations

import base64
import hashlib
import json
import os
import re
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from simulator.hosts import images
from simulator.hosts.accelerators import declare
from simulator.hosts.machines import HostRequest, Machines, Mount
from simulator.settings import Settings
from tests.integration.logins import wait_for_login, wait_for_port
from tests.integration.test_serve_on_host import LOADING, TRICKY, UNIT, Fleet, snapshot_of
from tests.integration.toy import toy_files
from tests.unit.serve.plans import venv

pytestmark = pytest.mark.podman

ROOT = Path(__file__).parents[2]
HERE = Path(__file__).parent
INDEX = "http://127.0.0.1:8070"
ENGINE = "/opt/glm/engines/toy-engine-1.0"
STAND_INS = {
    "torch": "import glob\n\n\nclass cuda:\n    @staticmethod\n    def device_count():\n"
    "        return sum(bool(open(path)) for path in glob.glob('/dev/nvidia[0-9]*'))\n",
    "transformers/__init__": "",
    "transformers/models/__init__": "",
    "transformers/models/auto/__init__": "",
    "transformers/models/auto/configuration_auto": "CONFIG_MAPPING_NAMES = {'glm_moe_dsa': 'GlmMoeDsaConfig'}\n",
}


def wheel(index: Path, name: str, version: str, files: dict[str, str], needs: str = "", script: str = "") -> None:
    """A wheel with Python files, listed in the index (PEP 427, PEP 503)."""
    info = f"{name.replace('-', '_')}-{version}.dist-info"
    requires = f"Requires-Dist: {needs}\n" if needs else ""
    metadata = f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n{requires}"
    content = {f"{path}.py": text for path, text in files.items()}
    content[f"{info}/METADATA"] = metadata
    content[f"{info}/WHEEL"] = "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
    if script:
        content[f"{info}/entry_points.txt"] = f"[console_scripts]\n{script}\n"
    rows = []
    for path, text in content.items():
        digest = base64.urlsafe_b64encode(hashlib.sha256(text.encode()).digest()).rstrip(b"=").decode()
        rows.append(f"{path},sha256={digest},{len(text.encode())}\n")
    content[f"{info}/RECORD"] = "".join(rows) + f"{info}/RECORD,,\n"
    folder = index / "simple" / name
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / f"{name.replace('-', '_')}-{version}-py3-none-any.whl"
    with zipfile.ZipFile(file, "w") as archive:
        for path, text in content.items():
            archive.writestr(path, text)
    listed(folder)


def listed(folder: Path) -> None:
    links = [f'<a href="{path.name}">{path.name}</a>' for path in sorted(folder.glob("*.whl"))]
    (folder / "index.html").write_text("\n".join(links), encoding="utf-8")


def uv_wheel(index: Path) -> None:
    """The wheel the role pins, from the machine's own package index; kept for the next run."""
    pinned = yaml.safe_load((ROOT / "roles/engine_venv/defaults/main.yml").read_text(encoding="utf-8"))
    entry = pinned["engine_venv_uv_wheels"]["x86_64"]
    kept = Path(os.environ.get("GLM_CACHE_DIR") or "~/.cache/glm-fleet").expanduser() / "wheels" / entry["name"]
    if not kept.exists():
        kept.parent.mkdir(parents=True, exist_ok=True)
        version = entry["name"].split("-")[1]
        command = [sys.executable, "-m", "pip", "download", "-q", "--no-deps", "-d", str(kept.parent), f"uv=={version}"]
        subprocess.run(command, check=True)
    folder = index / "simple/uv"
    folder.mkdir(parents=True)
    (folder / kept.name).write_bytes(kept.read_bytes())
    listed(folder)


@pytest.fixture(scope="module")
def index(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("index")
    uv_wheel(folder)
    wheel(folder, "toy-kernels", "2.0", STAND_INS)
    engine = {path.removesuffix(".py"): text for path, text in toy_files().items()}
    wheel(folder, "toy-engine", "1.0", engine, "toy-kernels>=1", "toy-engine = toy_engine:main")
    folder.chmod(0o755)
    return folder


class BareFleet(Fleet):
    """A fleet whose plan is for bare metal, and whose package index is on the host."""

    python = ""

    def bare(self, *arguments: str, mode: str = "", hold_until: str = "", **changes: Any) -> Any:
        made = {**self.plan, **changes}
        made["env"] = {**made["env"], **({"TOY_MODE": mode} if mode else {})}
        return self.deploy_plans([made], *arguments, play="venv.yml", hold_until=hold_until)


@pytest.fixture(scope="module")
def fleet(tmp_path_factory: pytest.TempPathFactory, index: Path) -> Iterator[BareFleet]:
    folder = tmp_path_factory.mktemp("bare")
    settings = Settings.from_environment().with_state_dir(folder / "rehearsal")
    machines = Machines(settings)
    image = images.ensure_image(settings, machines.podman, "gpu-base")
    made = BareFleet(machines, folder)
    try:
        seed = made.seed()
        mounts = [Mount(index, "/srv/index", read_only=True)]
        host = machines.create(
            HostRequest("gpu-1", image, "gpu-1", "manual", seed, declare("B200", 8, 192), mounts=mounts)
        )
        made.write_inventory(host.ip)
        wait_for_login(machines, "gpu-1")
        # These machines may not raise limits.
        made.on_host("mkdir", "-p", "/etc/systemd/system/glm-serve-.service.d")
        drop_in = "/etc/systemd/system/glm-serve-.service.d/limits.conf"
        made.on_host("tee", drop_in, stdin="[Service]\nLimitMEMLOCK=\nLimitSTACK=\n")
        made.on_host("systemctl", "daemon-reload")
        serve_index(made)
        show = "import sys; print('%d.%d' % sys.version_info[:2])"
        made.python = made.on_host("python3", "-c", show).strip()
        made.plan = bare_plan(host.private_ip, made.python)
        made.variables = {
            "engine_venv_lock_file": str(folder / "glm.lock.yml"),
            "engine_venv_index_url": f"{INDEX}/simple",
            "engine_venv_system_packages": [],
            "engine_venv_environment": {"UV_PYTHON_PREFERENCE": "only-system"},
            "engine_venv_progress_seconds": 1,
        }
        yield made
    finally:
        machines.remove_all(["manual"])


def serve_index(fleet: Fleet) -> None:
    server = ["systemd-run", "--unit=index", "python3", "-m", "http.server", "--bind", "127.0.0.1"]
    fleet.on_host(*server, "--directory", "/srv/index", "8070")
    wait_for_port(fleet.machines, "gpu-1", 8070)


def bare_plan(address: str, python: str) -> dict[str, Any]:
    """``python``: the distribution's own, because uv's cannot be fetched here."""
    made = venv()
    made["runtime"].update(path=ENGINE, package="toy-engine==1.0", python=python)
    made["model"]["model_type"] = "glm_moe_dsa"
    made["listen"]["address"] = address
    made["timeouts"] = {"start_seconds": 600, "stop_seconds": 300, "drain_seconds": 240, "phases": {}}
    made["command"] = [f"{ENGINE}/bin/toy-engine", *TRICKY]
    made["env"] = {"TOY_ADDRESS": "127.0.0.1", "TOY_PORT": "18000", "TOY_TRICKY": '{"a": "$HOME `x` \\ \' %h"} # '}
    return made


def said(fleet: Fleet, what: str) -> Any:
    journal = fleet.on_host("journalctl", "-u", UNIT, "-o", "cat")
    return json.loads(re.findall(rf"^{what} (.*)$", journal, re.M)[-1])


def test_check_mode_works_on_a_fresh_host_and_touches_nothing(fleet: BareFleet) -> None:
    run = fleet.bare("--check", "--diff")
    assert run.code == 0, run.output
    assert fleet.on_host("sh", "-c", "ls -d /opt/glm /etc/glm 2>/dev/null || true") == ""
    assert not list(fleet.folder.glob("glm.lock*"))


def test_a_first_run_ends_in_a_verified_endpoint(fleet: BareFleet) -> None:
    fleet.on_host("mkdir", "-p", snapshot_of(fleet))
    run = fleet.bare(hold_until=LOADING)
    assert run.code == 0, run.output
    assert "resolving toy-engine==1.0 once for the fleet" in run.output
    assert "loading weights (shards" in run.output and "glm-serve-0: ready after" in run.output
    report = json.loads((fleet.state / "reports/gpu-1.json").read_text(encoding="utf-8"))
    assert report["ok"] and {check["check"] for check in report["checks"]} >= {"chat", "tool_call", "closed"}


def test_the_list_of_packages_lies_beside_the_lock_file_with_hashes(fleet: BareFleet) -> None:
    (file,) = fleet.folder.glob("glm.lock.*.txt")
    assert file.name == f"glm.lock.toy-engine-1.0.nvidia-x86_64-py{fleet.python}.txt"
    text = file.read_text(encoding="utf-8")
    assert "toy-engine==1.0" in text and "toy-kernels==2.0" in text and text.count("--hash=sha256:") == 2


def test_the_engine_runs_as_its_own_user_and_sees_what_the_plan_has(fleet: BareFleet) -> None:
    pid = fleet.show("MainPID")
    assert fleet.on_host("ps", "-o", "user=", "-p", pid).strip() == "glm"
    assert said(fleet, "argv") == TRICKY
    assert said(fleet, "environ")["TOY_TRICKY"] == fleet.plan["env"]["TOY_TRICKY"]
    assert len(said(fleet, "devices")) == 8


def test_secrets_are_root_s_and_in_no_argument_list(fleet: BareFleet) -> None:
    mode = fleet.on_host("stat", "-c", "%a %U %n", "/etc/glm/serve-0.env", "/etc/glm/serve-0.secret.env")
    assert mode.split("\n")[:2] == ["600 root /etc/glm/serve-0.env", "600 root /etc/glm/serve-0.secret.env"]
    key = (fleet.state / "api_key").read_text(encoding="utf-8").strip()
    assert key not in fleet.on_host("sh", "-c", "cat /proc/[0-9]*/cmdline | tr '\\0' ' '")


def test_the_sandbox_holds_the_engine_and_lets_it_work(fleet: BareFleet) -> None:
    pid = fleet.show("MainPID")
    enter = ["nsenter", "--target", pid, "--mount", "--", "setpriv", "--reuid=glm", "--regid=glm", "--clear-groups"]
    assert "writable" in fleet.on_host(*enter, "sh", "-c", "touch $0/x && echo writable", fleet.plan["paths"]["cache"])
    for place in (ENGINE, "/var/lib/glm/huggingface", "/etc", "/home"):
        refused = fleet.on_host(*enter, "sh", "-c", f"touch {place}/x 2>/dev/null || echo refused")
        assert refused.strip() == "refused", place


def test_a_second_run_changes_nothing_and_asks_no_index(fleet: BareFleet) -> None:
    before = fleet.show("MainPID"), fleet.show("InvocationID")
    fleet.on_host("systemctl", "stop", "index")
    try:
        run = fleet.bare()
    finally:
        serve_index(fleet)
    assert (run.code, run.changed()) == (0, 0), run.output
    assert (fleet.show("MainPID"), fleet.show("InvocationID")) == before


def test_a_damaged_environment_is_made_again_while_the_engine_runs(fleet: BareFleet) -> None:
    before = fleet.show("InvocationID")
    fleet.on_host("sh", "-c", f"rm {ENGINE}/.glm.json && rm -r {ENGINE}/lib/python3*/site-packages/toy_*")
    run = fleet.bare()
    assert run.code == 0, run.output
    assert fleet.on_host("test", "-s", f"{ENGINE}/.glm.json") == ""
    assert fleet.show("InvocationID") == before, "the same packages are no reason to stop what runs"


def test_an_interrupted_installation_is_taken_up(fleet: BareFleet) -> None:
    """What a host looks like that lost power between two packages: the new environment lies beside its place."""
    lost = (
        f"mv {ENGINE} {ENGINE}.new && cd {ENGINE}.new && mv .glm.json .glm.json.wanted "
        "&& touch lib/kept && rm -r lib/python3*/site-packages/toy_*"
    )
    fleet.on_host("sh", "-c", lost)
    run = fleet.bare()
    assert run.code == 0, run.output
    kept = fleet.on_host("sh", "-c", f"ls {ENGINE}/lib/kept; ls -d {ENGINE}.* 2>/dev/null || true")
    assert kept.split() == [f"{ENGINE}/lib/kept"]


def test_a_list_of_packages_that_was_made_for_something_else_is_refused(fleet: BareFleet) -> None:
    (file,) = fleet.folder.glob("glm.lock.*.txt")
    run = fleet.bare("-e", '{"engine_venv_overrides": ["toy-kernels==3"]}')
    assert run.code != 0
    assert "made for toy-engine==1.0 override:toy-kernels==3" in run.output and file.name in run.output


def test_a_package_whose_bytes_changed_is_refused(fleet: BareFleet) -> None:
    (file,) = fleet.folder.glob("glm.lock.*.txt")
    text = file.read_text(encoding="utf-8")
    fleet.on_host("systemctl", "stop", UNIT)
    try:
        file.write_text(re.sub(r"sha256:[0-9a-f]{4}", "sha256:0000", text), encoding="utf-8")
        run = fleet.bare()
        assert run.code != 0 and "Hash mismatch" in run.output, run.output
    finally:
        file.write_text(text, encoding="utf-8")
    assert fleet.bare().code == 0


@pytest.mark.parametrize(("mode", "statuses"), [("", []), ("killed", ["137", "SIGKILL"])])
def test_a_stop_is_clean(fleet: BareFleet, mode: str, statuses: list[int]) -> None:
    assert fleet.bare("--tags", "serve", mode=mode, stop={"drains": True, "success_exit_status": statuses}).code == 0
    fleet.on_host("systemctl", "stop", UNIT)
    assert (fleet.show("ActiveState"), fleet.show("Result")) == ("inactive", "success")


def test_an_engine_that_exits_shows_its_last_lines_without_the_key(fleet: BareFleet) -> None:
    run = fleet.bare("--tags", "serve", mode="exit")
    assert run.code != 0 and fleet.on_host("cat", "/etc/glm/engine.key").strip() not in run.output
    assert "ValueError: cannot serve with ********" in run.output and "in 2 attempts" in run.output


def test_an_engine_that_is_not_there_is_named(fleet: BareFleet) -> None:
    run = fleet.bare("--tags", "serve", command=["/opt/glm/engines/none/bin/vllm", "serve"])
    assert run.code != 0 and "the engine's program is not on the host" in run.output
