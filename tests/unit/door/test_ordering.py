"""When a door's certificate is ordered, when an authority is left alone, and what a failure is called."""

from __future__ import annotations

import json
import re
import socket
import sys
import threading
import time
from collections.abc import Sequence
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import pytest
import yaml

from ansible_collections.glm.fleet.plugins.module_utils import files
from ansible_collections.glm.fleet.plugins.module_utils.door import order, staged
from ansible_collections.glm.fleet.plugins.module_utils.door.master import Master
from ansible_collections.glm.fleet.plugins.module_utils.finding import Unmet
from ansible_collections.glm.fleet.plugins.module_utils.host import commands
from ansible_collections.glm.fleet.plugins.plugin_utils.serving import door, gateway
from ansible_collections.glm.fleet.plugins.plugin_utils.tls import authority
from tests.unit.door.test_gateway_data import HERE
from tests.unit.serve.plans import listening, plan
from tests.unit.serve.render import render_host

NAMES = ["glm.example.com", "b.example.com"]
DIRECTORY = "https://ca.example.com/dir"
DAY = 86400.0


GIVEN: dict[str, object] = {
    "names": NAMES, "directory": DIRECTORY, "email": "", "authorities": "", "answers": "127.0.0.1:981",
    "address": "192.0.2.7", "unit": "glm-door.service", "socket": "/none",
    "place": dict.fromkeys(("program", "config", "usage", "certificate", "engine_key", "group"), "/none"),
}  # fmt: skip


def ordering(folder: Path, **changes: object) -> order.Order:
    return order.of({**GIVEN, "folder": str(folder), **changes})


def ordered(folder: Path) -> tuple[order.Order, float]:
    """An order whose certificate certbot keeps, and when it was issued."""
    made, now = ordering(folder), datetime.now(timezone.utc)
    pair = authority.issue(authority.read_or_make(folder / "ca", "ca", now), NAMES, now)
    files.write_text(made.lineage / "fullchain.pem", pair.chain)
    files.write_text(folder / "config/renewal/glm-door.conf", f"version = 2.1.0\nserver = {DIRECTORY}\n")
    return made, now.timestamp()


def test_one_is_due_where_none_serves_the_names_or_a_third_of_its_life_is_left(tmp_path: Path) -> None:
    assert order.why_due(ordering(tmp_path), 0) == "none was ordered yet"
    made, issued = ordered(tmp_path)
    assert order.why_due(made, issued) == order.why_due(made, issued + 264 * DAY) == ""
    assert order.why_due(made, issued + 265 * DAY).startswith("it ends on ")
    assert order.why_due(made, issued + 398 * DAY).startswith("it expired on ")
    other = ordering(tmp_path, names=["glm.example.com"])
    assert order.why_due(other, issued) == "the one that was ordered is for glm.example.com, b.example.com"
    turned = ordering(tmp_path, names=[*reversed(NAMES)])
    assert order.why_due(turned, issued) == ""
    moved = ordering(tmp_path, directory="https://other.example.com/dir")
    assert order.why_due(moved, issued) == f"the one that was ordered is of {DIRECTORY}"


def test_an_ordered_certificate_that_cannot_be_read_is_not_taken_for_none(tmp_path: Path) -> None:
    made = ordering(tmp_path)
    for name in ("fullchain.pem", "glm-door-failed.json"):
        path = (made.lineage if name == "fullchain.pem" else made.folder) / name
        path.mkdir(parents=True)
        for checks in (True, False):
            with pytest.raises(Unmet, match=rf"to read .*{name}, found Is a directory"):
                order.brought(made, checks) if name == "fullchain.pem" else order._require_patience(made, 0)
        path.rmdir()


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("null", "an order in {file}, found NoneType"),
        ("[]", "an order in {file}, found list"),
        ("{}", "an order that is whole in {file}, found one without a value for directory, email, "),
        ({"names": None}, "without a value for names"),
        ({"names": "glm.example.com"}, "without a value for names"),
        ({"names": []}, "without a value for names"),
        ({"email": None, "place": None}, "without a value for email"),
        ({"place": None}, "without a value for place"),
        ({"place": {"program": "/x"}}, "without a value for place: config, place: usage"),
    ],
)
def test_an_order_of_another_form_is_said_and_nothing_is_asked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], text: Any, words: str
) -> None:
    file = tmp_path / "order.json"
    if not isinstance(text, str):
        text = json.dumps({**GIVEN, "folder": str(tmp_path / "none"), **text})
    file.write_text(text, "utf-8")
    monkeypatch.setattr(sys, "argv", ["door_order", str(file)])
    assert order.main() == 1
    said = capsys.readouterr().err
    assert words.format(file=file) in said and "run deploy.yml, which writes it" in said, said
    assert not (tmp_path / "none").exists()


def test_an_order_that_was_withdrawn_is_no_failure(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["door_order", str(tmp_path / "order.json")])
    assert order.main() == 0 and capsys.readouterr().out == "certificate: none is ordered any more\n"


@pytest.mark.parametrize("changes", [{"at": None}, {"times": "many"}, {"why": None}, {"next": 7}])
def test_a_noted_failure_of_another_form_holds_nothing_up(tmp_path: Path, changes: dict[str, object]) -> None:
    noted = {"order": [DIRECTORY, *NAMES], "times": 1, "at": 1000.0, "why": "that it refused", "next": "do this"}
    files.write_json(tmp_path / "glm-door-failed.json", {**noted, **changes})
    order._require_patience(ordering(tmp_path), 1001.0)


class Answering(threading.Thread):
    """A master of HAProxy that says the same to everything, or nothing at all."""

    def __init__(self, path: Path, answer: bytes) -> None:
        super().__init__(daemon=True)
        self._answer = answer
        self._listening = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._listening.bind(str(path))
        self._listening.listen()

    def run(self) -> None:
        while True:
            connection, _where = self._listening.accept()
            with connection:
                while connection.recv(4096):
                    pass
                connection.sendall(self._answer)


def test_a_door_that_does_not_say_what_it_serves_is_not_current(tmp_path: Path) -> None:
    path, config = tmp_path / "master.sock", tmp_path / "haproxy.cfg"
    # Neither a checksum on disk nor an answer: that both are nothing makes them no match.
    assert staged.unserved(str(path), config) == f"no checksum in {config}"
    config.write_text("global\n    description 0123456789abcdef\n")
    assert (
        staged.unserved(str(path), config) == f"that it does not say what it serves: No such file or directory ({path})"
    )
    assert not Master(path, patience=0).listens()
    Answering(path, b"").start()
    assert staged.unserved(str(path), config).startswith("that it does not say what it serves: ")
    assert Master(path, patience=0).listens(), "who listens is there, whatever it answers"
    other = tmp_path / "other.sock"
    Answering(other, b"7 worker\ndescription: fedcba9876543210\n\n").start()
    assert staged.unserved(str(other), config) == "that it serves fedcba987654, not 0123456789ab"
    with pytest.raises(
        Unmet, match=rf"glm-door to serve {config} within 0 s, found that it serves fedc.*; the unit is "
    ):
        staged.wait_until_served(str(other), config, "glm-door", 0)
    config.write_text("global\n    description fedcba9876543210\n")
    assert staged.unserved(str(other), config) == ""
    staged.wait_until_served(str(other), config, "glm-door", 0)


@pytest.mark.parametrize(("times", "wait"), [(1, 300), (2, 600), (3, 1200), (9, 43200), (999, 43200)])
def test_an_authority_that_refused_is_left_alone_longer_each_time(tmp_path: Path, times: int, wait: int) -> None:
    made = ordering(tmp_path)
    noted = {"order": [DIRECTORY, *NAMES], "times": times, "at": 1000.0, "why": "that it refused", "next": "do this"}
    files.write_json(tmp_path / "glm-door-failed.json", noted)
    order._require_patience(made, 1000.0 + wait)
    with pytest.raises(
        Unmet, match=r"do this\. The authority is asked again after 1970-01-01 \d\d:\d\d UTC; remove .*failed\.json"
    ):
        order._require_patience(made, 999.0 + wait)
    order._require_patience(ordering(tmp_path, names=["other.example.com"]), 1000.0)
    (tmp_path / "glm-door-failed.json").write_text("half of")
    order._require_patience(made, 1000.0)


def test_a_failure_that_a_wrong_clock_noted_and_a_thousand_of_them_hold_nothing_up(tmp_path: Path) -> None:
    made = ordering(tmp_path)
    noted = {"order": [DIRECTORY, *NAMES], "times": 5000, "at": 1000.0, "why": "that it refused", "next": "do this"}
    files.write_json(tmp_path / "glm-door-failed.json", noted)
    order._require_patience(made, 999.0)
    order._require_patience(made, 1000.0 + order.LONGEST_WAIT)
    with pytest.raises(Unmet, match="asked again after 1970-01-01 12:16 UTC"):
        order._require_patience(made, 1001.0)


def test_a_host_without_certbot_is_said_and_is_no_failure_of_the_authority(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(commands, "which", lambda _name: None)
    with pytest.raises(Unmet, match=r"expected certbot on the host.*not found.*deploy\.yml --tags door"):
        order._ask(ordering(tmp_path))
    assert not (tmp_path / "glm-door-failed.json").exists()


def test_what_the_host_cannot_write_or_read_is_said_with_its_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(Unmet, match=r"Not a directory \(.*/file/certificate\).*make room"):
        order.brought(ordering(tmp_path / "file/certificate"))
    broken = tmp_path / "broken.json"
    broken.write_text("{")
    for file, words in ((tmp_path, "Is a directory"), (broken, "an order in")):
        monkeypatch.setattr(sys, "argv", ["door_order", str(file)])
        assert order.main() == 1
        said = capsys.readouterr().err
        assert said.startswith("certificate: ") and words in said and str(file) in said, said


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"names": ["GLM.example.com", "b.example.com"]}, "for glm.example.com, b.example.com"),
        ({"directory": "https://other.example.com/dir"}, f"of {DIRECTORY}"),
    ],
)
def test_one_that_is_due_again_as_soon_as_it_came_is_a_failure_that_is_noted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, changes: dict[str, object], words: str
) -> None:
    ordered(tmp_path)
    asked = ordering(tmp_path, **changes)
    orders: list[object] = []

    def certbot(command: Sequence[str], **_more: object) -> commands.CommandResult:
        orders.append(command)
        return commands.CommandResult(tuple(command), 0, "Successfully received certificate.", "")

    monkeypatch.setattr(commands, "run", certbot)
    with pytest.raises(Unmet, match=rf"one that is due at once: the one that was ordered is {words}"):
        order._ask(asked)
    with pytest.raises(Unmet, match="an order failed 0 min ago"):
        order._require_patience(asked, time.time())
    assert len(orders) == 1


SAID = """Saving debug log to /x
Requesting a certificate for glm.example.com

Certbot failed to authenticate some domains. The Certificate Authority reported these problems:
  Domain: a.invalid
  Type:   dns
  Detail: DNS problem: NXDOMAIN looking up A
  for a.invalid \x1b[31mred

  Domain: b.invalid
  Type:   connection
  Detail: 192.0.2.1: Fetching http://b.invalid/: Timeout

Hint: The Certificate Authority failed to download the challenge files.

Some challenges have failed.
Ask for help or search for solutions at https://community.letsencrypt.org.
"""


def test_what_the_authority_said_is_quoted_printable_for_each_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(order, "_leads", lambda name: f"from here {name} leads to 192.0.2.1")
    found, advice = order.worded(ordering(tmp_path), SAID)
    assert "a.invalid (dns): DNS problem: NXDOMAIN looking up A for a.invalid red;" in found
    assert "b.invalid (connection): 192.0.2.1: Fetching http://b.invalid/: Timeout;" in found
    assert found.endswith("from here b.invalid leads to 192.0.2.1") and "\x1b" not in found
    assert "lead to this host (192.0.2.7)" in advice and "port 80" in advice


@pytest.mark.parametrize(
    ("said", "found", "advice"),
    [
        (
            "An unexpected error occurred:\nValueError: Requesting ca/dir: Connection refused\n",
            "does not answer",
            "reaches",
        ),
        (
            "An unexpected error occurred:\nrequests.exceptions.ReadTimeout: read timed out\n",
            "does not answer",
            "reaches",
        ),
        ("x\nSSLError(1, CERTIFICATE_VERIFY_FAILED)\nAsk for help", "is not trusted", "glm_tls_ca"),
        (
            "x\nError creating new order :: too many certificates already issued\n",
            "too many certificates",
            "letsencrypt.log",
        ),
        ("", "no reason from certbot", "letsencrypt.log"),
    ],
)
def test_other_failures_have_their_last_words_and_a_next_step(
    tmp_path: Path, said: str, found: str, advice: str
) -> None:
    words = order.worded(ordering(tmp_path), said)
    assert found in words[0] and advice in words[1]


def test_what_certbot_lost_is_read_in_its_log(tmp_path: Path) -> None:
    made = ordering(tmp_path)
    log = "Traceback\nacme.messages.Error: urn:ietf:params:acme:error:badNonce :: an old nonce\n\nAttributeError: x\n"
    files.write_text(tmp_path / "logs/letsencrypt.log", log)
    said = "An unexpected error occurred:\nAttributeError: can't set attribute\nAsk for help"
    assert order.worded(made, said)[0] == "urn:ietf:params:acme:error:badNonce :: an old nonce"
    assert "can't set attribute" in order.worded(ordering(tmp_path / "none"), said)[0]


def test_the_wait_is_shown_by_the_clock_of_the_host(tmp_path: Path) -> None:
    at = time.time()
    noted = {"order": [DIRECTORY, *NAMES], "times": 1, "at": at, "why": "that it refused", "next": "do this"}
    assert time.strftime("%Y-%m-%d %H:%M", time.gmtime(at + 300)) in order._later(ordering(tmp_path), noted)


def test_the_timer_asks_nobody_while_the_door_is_stopped() -> None:
    made = door.door([plan(listen=listening())])  # type: ignore[list-item]  # test plans are dicts
    unit = render_host("glm-door-certificate.service", door=made, proxies={})
    assert "\nExecCondition=/usr/bin/systemctl is-active --quiet glm-door.service\n" in unit
    assert "Environment=" not in unit
    unit = render_host("glm-door-certificate.service", door=made, proxies={"https_proxy": "http://proxy:3128"})
    assert '\nEnvironment="https_proxy=http://proxy:3128"\n' in unit


def test_the_timer_of_a_gateway_asks_nobody_while_it_or_the_door_that_has_the_port_is_stopped() -> None:
    acme = {"directory": DIRECTORY, "email": "", "address": "10.0.0.1"}
    one = plan(listen=listening("10.0.0.1"), tls={"origin": "acme", "names": NAMES, "acme": acme})
    here = {**HERE, "tls": "acme", "tls_names": NAMES}
    for fleet, units in (([{"host": "g", "plans": [one], "address": ""}], 2), ([], 1)):
        made = gateway.gateway(fleet, here)
        unit = render_host("glm-door-certificate.service", door=made, proxies={})
        asked = re.findall(r"^ExecCondition=/usr/bin/systemctl is-active --quiet (\S+)$", unit, re.MULTILINE)
        assert asked == ["glm-gateway.service", "glm-door.service"][:units]
        assert "\nExecStart=/usr/bin/python3 -I -B /usr/local/lib/glm/door_order /etc/glm/gateway/order.json\n" in unit
        assert "\nReadWritePaths=/etc/glm/gateway\n" in unit


def test_the_order_of_a_gateway_is_whole() -> None:
    made = gateway.gateway([], {**HERE, "tls": "acme", "tls_names": NAMES})["acme"]["order"]
    read = order.of(json.loads(json.dumps({**made, "authorities": ""})))
    assert read.names == tuple(NAMES) and read.place.engine_key is None and read.place.config.parent.name == "gateway"


def test_what_is_ordered_for_a_gateway_is_kept_beside_that_of_the_door(tmp_path: Path) -> None:
    made, other = ordering(tmp_path), ordering(tmp_path, unit="glm-gateway.service")
    assert {made.lineage.name, other.lineage.name} == {"glm-door", "glm-gateway"}
    assert made.folder == other.folder and made.failed != other.failed
    assert (made.front, other.front) == ("door", "gateway")


def test_the_timers_run_before_an_order_that_fails_ends_the_play() -> None:
    tasks = Path(__file__).parents[3] / "roles/door/tasks"
    imported = [one["ansible.builtin.import_tasks"] for one in yaml.safe_load((tasks / "main.yml").read_text())]
    steps = [step for name in imported for step in yaml.safe_load((tasks / name).read_text())]
    ordering_at = [number for number, step in enumerate(steps) if "glm.fleet.door_order" in step]
    enabled = [
        number
        for number, step in enumerate(steps)
        if step.get("ansible.builtin.systemd_service", {}).get("enabled") is True
    ]
    names = [steps[number]["ansible.builtin.systemd_service"]["name"] for number in enabled]
    assert sorted(names) == ["glm-door-usage.timer", "{{ __door_ordered['name'] }}-certificate.timer"]
    assert len(ordering_at) == 1 and max(enabled) < ordering_at[0]
