"""One row for each gateway of a fleet: what it sees of the replicas, what is not known, and what makes it unwell."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from ansible_collections.glm.fleet.plugins.module_utils.door import gateway as on_host
from ansible_collections.glm.fleet.plugins.module_utils.finding import Unmet
from ansible_collections.glm.fleet.plugins.module_utils.serving import look
from ansible_collections.glm.fleet.plugins.plugin_utils.serving import fleet, fleet_gateways
from tests.unit.serve.plans import nodes, plan, replicas
from tests.unit.verify.test_fleet_status import NOW, VALIDATOR, host

UP = {"in": True, "status": "UP", "check": "Layer7 check passed", "open": 3, "waiting": 0}
DOWN = {"in": False, "status": "DOWN", "check": "Layer4 timeout", "open": 1, "waiting": 2}


def seen(replicas: dict[str, Any] | None = None, **changes: Any) -> dict[str, Any]:
    """What a host says of its gateway (module_utils/serving/look.py)."""
    behind = {"gpu-1-0": UP, "gpu-2-0": UP} if replicas is None else replicas
    return {"running": True, "replicas": behind, "certificate_ends": NOW + 60 * 86400, **changes}


def shown(
    said: dict[str, Any] | None, states: dict[str, str] | None = None, wanted: bool = True, complete: bool = True
) -> fleet_gateways.GatewayStatus | None:
    of_fleet: fleet_gateways.Fleet = {
        "wanted": ["gpu-1"] if wanted else [],
        "states": {"gpu-1-0": "serving", "gpu-2-0": "serving"} if states is None else states,
        "complete": complete,
    }
    made = fleet_gateways.of_host("gpu-1", said, "unreachable: timed out", of_fleet, NOW)
    VALIDATOR.validate(json.loads(json.dumps(fleet.fleet([], [made] if made else []))))
    return made


def must(*arguments: Any, **changes: Any) -> fleet_gateways.GatewayStatus:
    made = shown(*arguments, **changes)
    assert made is not None
    return made


def row(made: fleet_gateways.GatewayStatus) -> str:
    return fleet_gateways.lines([made])[1]


def test_a_gateway_that_sends_requests_to_every_replica_is_well() -> None:
    made = must(seen())
    assert made["ok"] and not made["problems"] and not made["drift"]
    assert re.split(r"\s{2,}", row(made)) == ["gpu-1", "running", "2 up", "6 open, 0 wait", "60 d"]


@pytest.mark.parametrize(
    ("of_host", "sees", "word", "problem"),
    [
        ("draining", "draining", "1 up, draining gpu-2-0", ""),
        ("serving", "down", "1 up, DOWN gpu-2-0", "it sends no requests to gpu-2-0: DOWN, Layer4 timeout"),
        # Of a host that did not answer nobody knows more than the gateway.
        ("unread", "down", "1 up, DOWN gpu-2-0", "it sends no requests to gpu-2-0: DOWN, Layer4 timeout"),
        # The row of its host says why.
        ("failed", "down", "1 up, DOWN gpu-2-0", ""),
        ("starting", "down", "1 up, DOWN gpu-2-0", ""),
    ],
)
def test_a_replica_that_gets_nothing_is_named(of_host: str, sees: str, word: str, problem: str) -> None:
    made = must(seen({"gpu-1-0": UP, "gpu-2-0": DOWN}), {"gpu-1-0": "serving", "gpu-2-0": of_host})
    assert [one["state"] for one in made["replicas"]] == ["up", sees]
    assert f"  {word}  " in row(made) and "4 open, 2 wait" in row(made)
    assert made["problems"] == ([problem] if problem else []) and made["ok"] == (not problem)


def test_a_host_that_serves_and_is_behind_no_gateway_is_a_problem() -> None:
    made = must(seen({"gpu-1-0": UP}))
    assert made["problems"] == ["gpu-2-0 serves and is not behind it. Next: deploy.yml without --limit."]
    assert must(seen({"gpu-1-0": UP}), {"gpu-1-0": "serving", "gpu-2-0": "starting"})["ok"]


def test_what_the_variables_do_not_have_is_shown_and_harms_nobody() -> None:
    made = must(seen({"gpu-1-0": UP, "gpu-2-0": UP, "old-0": DOWN}), wanted=False)
    assert made["ok"] and made["drift"] == [
        "it runs, and the variables want none here; the next deploy stops it",
        "old-0 is behind it, and no replica of the fleet",
    ]
    # Of a host without a plan the replicas are not known.
    assert not must(seen({"gpu-1-0": UP, "gpu-2-0": UP, "gpu-3-0": DOWN}), complete=False)["drift"]


@pytest.mark.parametrize(
    ("said", "state", "problem"),
    [
        (None, "unknown", "it was not read: unreachable: timed out"),
        ({"problem": "no answer\nat the socket"}, "unknown", "it was not read: no answer\\nat the socket"),
        ({"running": False, "unit": "failed"}, "stopped", "glm-gateway.service is failed. Next: journalctl"),
        ({"running": False, "unit": ""}, "stopped", "glm-gateway.service is in a state that systemd does not say"),
        ({}, "absent", "none is installed. Next: run deploy.yml"),
    ],
)
def test_one_that_is_not_read_is_not_one_that_does_not_run(
    said: dict[str, Any] | None, state: str, problem: str
) -> None:
    made = must(said)
    assert made["state"] == state and not made["ok"] and made["problems"][0].startswith(problem)
    word = "UNREAD" if state == "unknown" else state.upper()
    assert row(made).split()[1:] == [word, "?", "?", "?"]
    assert not fleet.fleet([], [made])["ok"]


def test_where_none_is_wanted_or_nothing_was_deployed_nobody_misses_one() -> None:
    assert shown({}, wanted=False) is None and shown(None, wanted=False) is None
    assert shown({"running": False, "unit": "inactive"}, wanted=False) is None
    assert shown({}, {"gpu-1-0": "absent", "gpu-2-0": "unread"}) is None
    # That a host does not answer about one that nobody wants is no row; that its gateway does not is one.
    assert not must({"problem": "no answer"}, wanted=False)["ok"]
    assert fleet_gateways.lines([]) == []


@pytest.mark.parametrize(
    ("ends", "cell", "ok"),
    [(NOW + 7 * 86400, "7 d", True), (NOW + 6.9 * 86400, "7 d", False), (0.0, "-", False), (None, "-", True)],
)
def test_its_certificate_ends_soon_or_was_not_read(ends: float | None, cell: str, ok: bool) -> None:
    made = must(seen(certificate_ends=ends))
    assert row(made).endswith(f"  {cell}") and made["ok"] == ok


def test_what_gateways_are_compared_with_is_what_hosts_said_of_themselves() -> None:
    two: Any = replicas(2)
    hosts = [
        fleet.of_host("gpu/1", [plan()], host(), 1.0, NOW),
        fleet.unread("gpu-2", "unreachable", 1.0),
        fleet.unread("gpu-3", "no plan", 1.0),
        fleet.unread("gpu-4", "unreachable", 1.0),
    ]
    second: Any = nodes(plan(), 1)
    compared = fleet.behind_gateways(hosts, {"gpu/1": [plan()], "gpu-2": two, "gpu-4": [second]}, ["gpu/1"])
    # The further host of a replica answers nobody; of one without a plan the replicas are not known.
    assert compared == {
        "wanted": ["gpu/1"], "states": {"gpu_1-0": "serving", "gpu-2-0": "unread", "gpu-2-1": "unread"},
        "complete": False,
    }  # fmt: skip


def test_nothing_foreign_reaches_the_terminal() -> None:
    made = must(seen({"a\x1b[2J": {**DOWN, "status": "DOWN\x1b", "check": "x\x07\ny"}}), {"a\x1b[2J": "serving"})
    text = "\n".join(fleet_gateways.lines([made])) + json.dumps(made)
    assert "\x1b" not in text and "\\u001b" not in text and "\x07" not in text


# --- on the host ------------------------------------------------------------------------------------------------------

CONFIG = "global\n    description abc\n{tls}    log stdout\n"


@pytest.fixture
def installed(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    for name in ("UNIT_FILE", "CONFIG"):
        monkeypatch.setattr(on_host, name, str(tmp_path / name))
    (tmp_path / "UNIT_FILE").write_text("", "utf-8")
    return tmp_path


def test_a_host_says_what_its_gateway_sees(installed: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(on_host, "view", lambda _socket, patience: {"gpu-1-0": UP})
    tls = "    setenv GLM_CERTIFICATE_ENDS {}\n"
    for ends, found in (("1795953600", 1795953600.0), ("0", 0.0)):
        (installed / "CONFIG").write_text(CONFIG.format(tls=tls.format(ends)), "utf-8")
        said = look._gateway()
        assert said == {"running": True, "replicas": {"gpu-1-0": UP}, "certificate_ends": found}
    (installed / "CONFIG").write_text(CONFIG.format(tls=""), "utf-8")
    assert look._gateway()["certificate_ends"] is None


def test_a_host_says_that_its_gateway_does_not_run_or_does_not_answer(
    installed: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(on_host, "view", lambda _socket, patience: None)
    monkeypatch.setattr(look.commands, "state_of", lambda _unit: "failed")
    assert look._gateway() == {"running": False, "unit": "failed"}

    def silent(_socket: Path, patience: float) -> None:
        raise Unmet("HAProxy to answer", "a timeout", "restart it")

    monkeypatch.setattr(on_host, "view", silent)
    assert "a timeout" in look._safely(look._gateway)["problem"]
    (installed / "UNIT_FILE").unlink()
    assert look._gateway() == {}


def test_what_a_check_found_comes_from_the_proxy_that_checks() -> None:
    rows = [
        {"pxname": "replicas", "svname": "a-0", "status": "DOWN", "scur": "1", "qcur": "0",
         "check_desc": "Layer4 connection problem", "last_chk": "Connection refused"},
        {"pxname": "any", "svname": "a-0", "status": "DOWN (via replicas/a-0)", "scur": "2", "qcur": "1",
         "check_desc": "", "last_chk": ""},
        {"pxname": "replicas", "svname": "BACKEND", "status": "UP", "scur": "9", "qcur": "9"},
    ]  # fmt: skip
    assert on_host.seen(rows) == {
        "a-0": {"in": False, "status": "DOWN", "check": "Layer4 connection problem, Connection refused", "open": 3,
                "waiting": 1},
    }  # fmt: skip
