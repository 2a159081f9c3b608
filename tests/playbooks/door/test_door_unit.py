"""What the module door_unit decides: it asks a real HAProxy what it serves; only systemd is a stand-in."""

from __future__ import annotations

import hashlib
import shutil
import socket
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from ansible_collections.glm.fleet.plugins.module_utils.door import gateway, staged
from ansible_collections.glm.fleet.plugins.module_utils.finding import Unmet
from ansible_collections.glm.fleet.plugins.module_utils.host.commands import CommandResult
from ansible_collections.glm.fleet.plugins.module_utils.serving import occupancy
from ansible_collections.glm.fleet.plugins.modules import door_unit
from tests.playbooks.door import proxy

pytestmark = pytest.mark.one_core
UNIT = "glm-door.service"


@pytest.fixture
def systemd(monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """systemd's properties of the unit; tests change them."""
    properties = {"ActiveState": "active", "UnitFileState": "enabled", "NeedDaemonReload": "no"}
    monkeypatch.setattr(door_unit.status, "show_unit", lambda *_args: properties)
    return properties


def given(folder: Path, **changes: Any) -> dict[str, Any]:
    """Options of the module for a door in ``folder``, started from the unit that is there."""
    unit = folder / UNIT
    unit.write_text("[Service]\n", encoding="utf-8")
    sums = f"{hashlib.sha256(unit.read_bytes()).hexdigest()}  {unit}\n"
    (folder / door_unit.STARTED).write_text(sums, encoding="utf-8")
    options = {
        "unit": UNIT,
        "unit_file": str(unit),
        "config": str(folder / "door/haproxy.cfg"),
        "socket": str(folder / "master.sock"),
        "listen": [],
        "timeout": 60,
    }
    return {**options, **changes}


def test_a_door_that_serves_its_file_is_left_alone_and_one_that_does_not_reads_it_again(
    tmp_path: Path, systemd: dict[str, str]
) -> None:
    params = given(tmp_path)
    (engine,) = proxy.free_ports(1)
    with proxy.running(tmp_path, engine) as one:
        assert door_unit.decided(params) == "none"
        config = proxy.configured(tmp_path, one.ports, [engine + 1], one.monitor)
        assert door_unit.decided(params) == "reload"
        one.process.send_signal(12)  # SIGUSR2, as ExecReload= sends it
        door_unit.wait_until_served(params)
        assert door_unit.decided(params) == "none"
        assert staged.unserved(params["socket"], config) == ""
        # One way in for administrators, the master's socket.
        assert [path.name for path in tmp_path.glob("*.sock")] == ["master.sock"]
        Path(params["unit_file"]).write_text("[Service]\nUser=other\n", encoding="utf-8")
        assert door_unit.decided(params) == "restart"
    systemd["ActiveState"] = "failed"
    assert door_unit.decided(params) == "start"


def test_a_door_that_does_not_answer_has_read_nothing(tmp_path: Path, systemd: dict[str, str]) -> None:
    params = given(tmp_path, timeout=0)
    (tmp_path / "door").mkdir()
    Path(params["config"]).write_text("global\n    description abc\n", encoding="utf-8")
    assert door_unit.decided(params) == "reload"
    with pytest.raises(Unmet, match=r"to serve .*haproxy.cfg within 0 s, found that it does not say") as late:
        door_unit.wait_until_served(params)
    assert f"what it serves: No such file or directory ({params['socket']}); the unit is " in str(late.value)
    assert "journalctl -u glm-door.service" in str(late.value)


def require(address: str, port: int, check_mode: bool = False) -> None:
    place = {"address": address, "port": port, "variable": "glm_port"}
    occupancy.require_places(door_unit.commands.run, UNIT, [place], check_mode)


def test_who_holds_the_port_is_named_with_the_variable_to_change() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(Unmet, match=rf"127.0.0.1 port {port} to be free, found process \d+ ") as refused:
            require("127.0.0.1", port)
    assert "choose another glm_port" in str(refused.value)
    require("127.0.0.1", port)


def test_an_address_of_another_host_is_refused() -> None:
    with pytest.raises(Unmet, match=r"192\.0\.2\.1 to be an address of this host"):
        require("192.0.2.1", 8000)


@pytest.mark.parametrize(
    ("unit", "check_mode", "free"),
    [
        (UNIT, False, True),
        ("glm-serve-0.service", False, False),
        ("glm-serve-0.service", True, True),
        (None, True, False),
    ],
)
def test_only_a_check_run_lets_an_engine_of_an_earlier_release_be_where_the_door_comes(
    monkeypatch: pytest.MonkeyPatch, unit: str | None, check_mode: bool, free: bool
) -> None:
    monkeypatch.setattr(occupancy, "port_owner", lambda *_args: occupancy.Holder("somebody", unit))
    if free:
        require("127.0.0.1", 8000, check_mode)
    else:
        with pytest.raises(Unmet, match="found somebody"):
            require("127.0.0.1", 8000, check_mode)


@pytest.mark.parametrize("unit", gateway.FRONTS)
def test_a_port_of_a_front_s_own_is_its_own(tmp_path: Path, unit: str) -> None:
    """Whatever containers publish the same port on other addresses."""

    def docker(argv: Sequence[str]) -> CommandResult:
        return CommandResult(tuple(argv), 0, "other (image)\n", "")

    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        (inode,) = [inode for _address, number, inode in occupancy.listening() if number == port]
        proc = tmp_path / "proc"
        (proc / "net").mkdir(parents=True)
        (proc / "net/tcp").write_text(Path("/proc/net/tcp").read_text(encoding="ascii"), encoding="ascii")
        (proc / "7/fd").mkdir(parents=True)
        (proc / "7/cgroup").write_text(f"0::/system.slice/{unit}\n", encoding="utf-8")
        (proc / "7/fd/3").symlink_to(f"socket:[{inode}]")
        owner = occupancy.port_owner(docker, "127.0.0.1", port, proc)
    assert owner is not None and owner.unit == unit


def test_a_program_that_an_upgrade_removed_is_not_current(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program = tmp_path / "program"
    shutil.copy("/bin/sleep", program)
    with subprocess.Popen([program, "600"]) as running:
        shown = CommandResult((), 0, f"{running.pid}\n", "")
        monkeypatch.setattr(door_unit.commands, "run", lambda _argv: shown)
        try:
            assert not door_unit.was_replaced(UNIT)
            program.unlink()
            assert door_unit.was_replaced(UNIT)
        finally:
            running.kill()
    assert not door_unit.was_replaced(UNIT), "a process that is gone shows nothing"
