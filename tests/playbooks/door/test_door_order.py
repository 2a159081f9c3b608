"""A door whose certificate is ordered: the real certbot, pebble as authority, and HAProxy as the product runs it."""

from __future__ import annotations

import grp
import http.client
import json
import os
import re
import signal
import socket
import ssl
import stat
import subprocess
import threading
import time
import urllib.request
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, replace
from datetime import datetime, timedelta, timezone
from http.server import HTTPServer, SimpleHTTPRequestHandler
from pathlib import Path

import pytest

from ansible_collections.glm.fleet.plugins.module_utils.door import order, owned, staged
from ansible_collections.glm.fleet.plugins.module_utils.door.master import Master
from ansible_collections.glm.fleet.plugins.module_utils.finding import Unmet
from ansible_collections.glm.fleet.plugins.plugin_utils.plan.tls import ANSWER_PORT
from ansible_collections.glm.fleet.plugins.plugin_utils.serving import door
from ansible_collections.glm.fleet.plugins.plugin_utils.tls import authority as fleet_authority
from ansible_collections.glm.fleet.plugins.plugin_utils.tls import certificate
from tests.patience import PATIENCE_SECONDS
from tests.playbooks import role_variables
from tests.playbooks.door import authority, gateways, proxy
from tests.playbooks.door.authority import Pebble
from tests.playbooks.verify.fake.server import Behaviour, engine
from tests.unit.serve.plans import listening, plan
from tests.unit.serve.render import render_host

pytestmark = pytest.mark.one_core
ROOT = Path(__file__).parents[3]
NAME = "glm.example.com"
TOKEN = "/.well-known/acme-challenge/evaGxfADs6pSRb2LAv9IZf17Dt3juxGJ-PCt92wr-oA"


@dataclass
class Host:
    """A host with a running door, and what it orders."""

    door: proxy.Door
    asked_at: int
    order: order.Order
    pebble: Pebble

    def brought(self, ordered: order.Order | None = None, checks: bool = False) -> dict[str, object]:
        """As the role and the timer do it, without systemd."""
        return order.brought(ordered or self.order, checks, lambda: self.door.process.send_signal(signal.SIGUSR2))

    def trusting(self) -> ssl.SSLContext:
        return ssl.create_default_context(cafile=str(self.pebble.authorities))

    def asks(self, context: ssl.SSLContext) -> int:
        """The status of a request of a client, who trusts the authority and knows the name."""
        connection = http.client.HTTPSConnection("127.0.0.1", self.door.port, context=context, timeout=PATIENCE_SECONDS)
        # The name that is proven is another than the address that is asked.
        connection.sock = context.wrap_socket(
            http.client.socket.create_connection(("127.0.0.1", self.door.port)), server_hostname=NAME
        )
        try:
            connection.request("GET", "/v1/models", headers={"Authorization": f"Bearer {proxy.CLIENT_KEY}"})
            answer = connection.getresponse()
            answer.read()
            return answer.status
        finally:
            connection.close()

    def plain(self, path: str, method: str = "GET") -> tuple[int, str]:
        """What the door answers where the authority asks."""
        connection = http.client.HTTPConnection("127.0.0.1", self.asked_at, timeout=PATIENCE_SECONDS)
        try:
            connection.request(method, path)
            answer = connection.getresponse()
            return answer.status, answer.read().decode()
        finally:
            connection.close()


@pytest.fixture(scope="module")
def host(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Host]:
    folder = tmp_path_factory.mktemp("host")
    asked_at, answers = proxy.free_ports(2)
    if os.geteuid() == 0:
        answers = ANSWER_PORT
    places = {"listen": f"127.0.0.1:{asked_at}", "answers": f"127.0.0.1:{answers}"}
    now = datetime.now(timezone.utc)
    begins_with = fleet_authority.issue(fleet_authority.read_or_make(folder / "tls", "blue", now), [NAME], now)
    with (
        authority.running(folder / "pebble", asked_at) as pebble,
        engine(Behaviour(key=proxy.ENGINE_KEY)) as (_chosen, port),
        proxy.running(folder, port, certificate=begins_with.together, acme=places) as door,
    ):
        made = proxy.data(folder, [door.port], [port], door.monitor)
        group = grp.getgrgid(os.getgid()).gr_name
        given = {
            "names": [NAME], "directory": pebble.directory, "email": "", "authorities": str(pebble.authorities),
            "answers": places["answers"], "address": "127.0.0.1", "folder": str(folder / "certificate"),
            "place": {**made["place"], "program": proxy.program(), "group": group},
            "unit": "glm-door.service", "socket": str(folder / "master.sock"),
        }  # fmt: skip
        yield Host(door, asked_at, order.of(given), pebble)


def test_a_certificate_is_ordered_once_and_the_port_of_the_authority_answers_nothing_else(host: Host) -> None:
    for path, method in (("/", "GET"), ("/v1/models", "GET"), (TOKEN, "GET"), (TOKEN, "POST"), (f"{TOKEN}/x", "GET")):
        assert host.plain(path, method)[0] == 404, (path, method)
    assert host.brought(checks=True) == {"changed": True, "reason": "none was ordered yet", "ends": 0.0}
    assert not host.order.folder.exists() and host.pebble.orders() == 0
    with pytest.raises(ssl.SSLCertVerificationError):
        host.asks(host.trusting())
    first = host.brought()
    assert (first["changed"], first["reason"]) == (True, "none was ordered yet")
    assert host.asks(host.trusting()) == 200
    held = certificate.first(host.order.place.certificate.read_text())
    assert held and certificate.subjects(held) == [NAME] and held.not_valid_after_utc.timestamp() == first["ends"]
    assert len(certificate.chain(host.order.place.certificate.read_text())) > 1, "intermediates are shown, too"
    assert stat.S_IMODE(host.order.place.certificate.stat().st_mode) == 0o640
    assert stat.S_IMODE(host.order.folder.stat().st_mode) == 0o700
    config = host.order.place.config.read_text()
    again, checked = host.brought(), host.brought(checks=True)
    assert again == checked == {"changed": False, "reason": "", "ends": first["ends"]}
    assert host.pebble.orders() == 1 and host.order.place.config.read_text() == config
    connection = http.client.HTTPConnection("127.0.0.1", host.door.monitor, timeout=PATIENCE_SECONDS)
    connection.request("GET", "/metrics/certificate")
    said = connection.getresponse().read().decode()
    assert said.splitlines()[-1].startswith("glm_door_certificate_left_seconds ")
    assert abs(float(said.split()[-1]) - (float(str(first["ends"])) - time.time())) < 60


def test_a_stranger_who_keeps_connections_open_does_not_keep_the_authority_out(host: Host) -> None:
    asked = ("127.0.0.1", host.asked_at)
    for _attempt in range(5):
        before = len(host.door.lines())
        strangers = all_at_once(host, 60)
        try:
            begun = time.monotonic()
            while waited := [one for one in strangers if not gone(one)]:
                assert time.monotonic() - begun < PATIENCE_SECONDS, f"{len(waited)} connections stay open"
                time.sleep(0.1)
        finally:
            for one in strangers:
                one.close()
        lines = host.door.lines()[before:]
        cut = [int(one["all"]) for one in lines if one["client"] == "127.0.0.2"]
        # Of other connections it is a minute.
        assert cut and min(cut) >= 2_900 and max(cut) < 30_000 and {"127.0.0.1"} < {one["client"] for one in lines}
        if lines[0]["client"] == "127.0.0.1":
            break
        # Proves nothing where the door itself got no processor for three seconds.
    else:
        raise AssertionError(f"it is answered only when the strangers are cut off: {lines}")
    with socket.create_connection(asked, timeout=PATIENCE_SECONDS) as kept:
        kept.sendall(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
        answer = b"".join(iter(lambda: kept.recv(4096), b""))
        assert b"connection: close" in answer.lower(), "a connection stays open after its answer"


def all_at_once(host: Host, count: int) -> list[socket.socket]:
    """So many connections of a stranger, and the authority, which is answered after them.

    All are there before the door looks at the first, however slow this process is. Those that have begun a request
    leave a line in the log when they end, and those that were turned away none.
    """
    worker = Master(host.door.folder / "master.sock").processes()[0].pid
    asked, strangers = ("127.0.0.1", host.asked_at), []
    os.kill(worker, signal.SIGSTOP)
    try:
        for number in range(count):
            strangers.append(socket.create_connection(asked, source_address=("127.0.0.2", 0)))
            if number % 2:
                strangers[-1].sendall(b"GET")
        authority = socket.create_connection(asked, timeout=PATIENCE_SECONDS)
        authority.sendall(f"GET {TOKEN} HTTP/1.1\r\nHost: {NAME}\r\n\r\n".encode())
    finally:
        os.kill(worker, signal.SIGCONT)
    with authority, authority.makefile("rb") as answer:
        assert answer.readline().split()[1] == b"404"
    return strangers


def gone(connection: socket.socket) -> bool:
    """Whether the other side has ended a connection."""
    connection.setblocking(False)
    try:
        while connection.recv(4096):
            pass
    except BlockingIOError:
        return False
    except ConnectionResetError:
        pass
    return True


def test_a_run_that_was_interrupted_before_the_door_had_its_certificate_is_finished_by_the_next(host: Host) -> None:
    shown = host.order.place.certificate.read_text()
    owned_by = host.order.place.certificate.stat().st_gid
    staged.owned.write(host.order.place.certificate, shown[: shown.index("-----END") + 25] + shown[-10:], owned_by)
    assert host.brought()["changed"] and host.order.place.certificate.read_text() == shown
    host.order.place.config.write_text(host.order.place.config.read_text() + "\n# another\n")
    staged.Files(host.order.place).write()
    assert host.brought()["changed"], "the running door does not serve what is on disk"
    assert not host.brought()["changed"]


@pytest.fixture(scope="module")
def shipped(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The program of the timer: the files that the role puts on a host, and nothing else."""
    folder = tmp_path_factory.mktemp("shipped")
    acme = {"directory": "https://ca.example.com/", "email": "", "address": ""}
    planned = plan(listen=listening(), tls={"origin": "acme", "names": [NAME], "acme": acme})
    given = {"door_plans": [planned], "role_path": str(ROOT / "roles/door"), "glm_tls": "acme"}
    files = role_variables.show(folder, "door", {"host": given}, "{{ __door_order_program }}")["host"]
    program = folder / "program"
    for file in (one for one in files if one["path"].startswith("/usr/local/lib/glm/door_order/")):
        path = program / file["path"].removeprefix("/usr/local/lib/glm/door_order/")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(file["content"], "utf-8")
    return program


def run(
    program: Path, ordered: order.Order, folder: Path, rights: Sequence[str] = ()
) -> subprocess.CompletedProcess[str]:
    """The program of the timer with an order; ``rights`` is a command that takes others away."""
    given = {**asdict(ordered), "folder": str(ordered.folder)}
    given["place"] = {name: str(value) for name, value in given["place"].items()}
    (folder / "order.json").write_text(json.dumps(given), "utf-8")
    command = [*rights, "/usr/bin/python3", "-I", "-B", str(program), str(folder / "order.json")]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=PATIENCE_SECONDS)


def test_the_program_of_the_timer_leaves_a_certificate_that_is_not_due(
    host: Host, shipped: Path, tmp_path: Path
) -> None:
    done = run(shipped, host.order, tmp_path)
    assert done.returncode == 0 and done.stdout.startswith("certificate: current; it ends on "), done


def due(host: Host) -> None:
    """Have the certificate that certbot keeps end soon."""
    now = datetime.now(timezone.utc) - timedelta(days=300)
    signer = fleet_authority.read_or_make(host.order.folder.parent / "old", "old", now)
    (host.order.lineage / "fullchain.pem").write_text(fleet_authority.issue(signer, [NAME], now).chain)


def reloading(host: Host, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Have ``systemctl reload`` reload the door of the test."""
    (folder / "bin").mkdir()
    (folder / "bin/systemctl").write_text(f"#!/bin/sh\nexec kill -USR2 {host.door.process.pid}\n")
    (folder / "bin/systemctl").chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}/bin:{os.environ['PATH']}")


# Stands for the door's own, which this machine may not have.
DOORS_GROUP = "daemon"


def rights_of_the_unit() -> list[str]:
    """A command that leaves a program the groups and the capabilities that the unit of the timer gives it."""
    made = door.door([plan(listen=listening())])  # type: ignore[list-item]  # test plans are dicts
    unit = render_host("glm-door-certificate.service", door={**made, "user": DOORS_GROUP}, proxies={})
    given = dict(line.partition("=")[::2] for line in unit.splitlines() if re.match(r"\w+=", line))
    number = grp.getgrnam(DOORS_GROUP).gr_gid
    more = [f"--groups={number}"] if given.get("SupplementaryGroups") == DOORS_GROUP else ["--clear-groups"]
    own = number if given.get("Group") == DOORS_GROUP else 0
    allowed = given["CapabilityBoundingSet"].lower().split()
    kept = ",".join(f"+{name.removeprefix('cap_')}" for name in allowed)
    return ["setpriv", f"--regid={own}", *more, f"--bounding-set=-all,{kept}"]


@pytest.mark.skipif(os.geteuid() != 0, reason="only root has rights that a unit could take away")
def test_the_timer_renews_with_the_rights_of_its_unit_what_a_deploy_ordered(
    host: Host, shipped: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shown = host.order.place.certificate
    before = shown.read_text()
    due(host)
    of_the_door = replace(host.order, place=replace(host.order.place, group=DOORS_GROUP))
    reloading(host, tmp_path, monkeypatch)
    done = run(shipped, of_the_door, tmp_path, rights_of_the_unit())
    assert done.returncode == 0 and "replaced, because it ends on" in done.stdout, done
    assert shown.read_text() != before and shown.group() == DOORS_GROUP


def outdated(host: Host) -> str:
    """Have the door show another certificate than the one that was ordered; what it shows then."""
    file = host.order.place.certificate
    now = datetime.now(timezone.utc)
    signer = fleet_authority.read_or_make(host.order.folder.parent / "old", "old", now)
    staged.owned.write(file, fleet_authority.issue(signer, [NAME], now).together, file.stat().st_gid)
    return file.read_text()


def wait_for_another(folder: Path) -> None:
    """Until somebody waits for the lock of a folder that is held here: each who does has it open."""
    begun = time.monotonic()
    while len([one for one in Path("/proc").glob("[0-9]*/fd/*") if leads_to(one, folder)]) < 2:
        assert time.monotonic() - begun < PATIENCE_SECONDS
        time.sleep(0.05)


def leads_to(handle: Path, folder: Path) -> bool:
    try:
        return handle.readlink() == folder
    except OSError:
        return False


def test_what_a_deploy_writes_while_an_order_comes_stays(host: Host) -> None:
    shown = outdated(host)
    with ThreadPoolExecutor(1) as pool:
        with owned.alone(host.order.place.config.parent):
            coming = pool.submit(host.brought)
            wait_for_another(host.order.place.config.parent)
            assert not coming.done() and host.order.place.certificate.read_text() == shown
            host.order.place.config.write_text(host.order.place.config.read_text() + "\n# of the deploy\n")
        assert coming.result(PATIENCE_SECONDS)["changed"]
    assert "# of the deploy" in host.order.place.config.read_text()
    assert host.order.place.certificate.read_text() != shown and not host.brought()["changed"]


def test_an_order_that_a_deploy_withdrew_meanwhile_gives_the_door_nothing(
    host: Host, shipped: Path, tmp_path: Path
) -> None:
    shown = outdated(host)
    with ThreadPoolExecutor(1) as pool:
        with owned.alone(host.order.place.config.parent):
            coming = pool.submit(run, shipped, host.order, tmp_path)
            wait_for_another(host.order.place.config.parent)
            assert not coming.done()
            (tmp_path / "order.json").unlink()
        done = coming.result(PATIENCE_SECONDS)
    assert (done.returncode, done.stdout) == (
        0, "certificate: the order changed meanwhile; the next run follows what it is now\n"
    ), done  # fmt: skip
    assert host.order.place.certificate.read_text() == shown
    assert host.brought()["changed"]


def test_a_renewal_loses_no_request(host: Host) -> None:
    due(host)
    context, statuses, plain, over = host.trusting(), [], [], threading.Event()

    def load() -> None:
        while not over.is_set():
            statuses.append(host.asks(context))

    def look() -> None:
        while not over.is_set():
            plain.append(host.plain("/")[0])
            time.sleep(0.02)

    clients = [threading.Thread(target=one) for one in (load, load, load, look)]
    for client in clients:
        client.start()
    before = host.order.place.certificate.read_text()
    try:
        renewed = host.brought()
        asked = len(statuses)
        while len(statuses) < asked + 30:
            time.sleep(0.01)
    finally:
        over.set()
        for client in clients:
            client.join()
    assert renewed["changed"] and "ends on" in str(renewed["reason"])
    assert host.order.place.certificate.read_text() != before
    assert set(statuses) == {200} and set(plain) == {404}, (len(statuses), set(statuses), set(plain))


class Unknown(SimpleHTTPRequestHandler):
    """A certbot that orders something else: it knows no token of another one, or ends just now."""

    asked = 0

    def do_GET(self) -> None:
        Unknown.asked += 1
        if Unknown.asked % 2:
            self.send_error(404)

    def log_message(self, *_args: object) -> None:
        """Quiet."""


def test_a_gateway_has_its_certificate_also_where_the_authority_asks_another_host_of_its_name(
    host: Host, tmp_path: Path
) -> None:
    """The other one orders something else meanwhile, and asks each that has the name, itself too."""
    name, now = "fleet.example.com", datetime.now(timezone.utc)
    host.pebble.leads_to(name, "127.0.0.2")
    begins_with = fleet_authority.issue(fleet_authority.read_or_make(tmp_path / "tls", "blue", now), [name], now)
    other = HTTPServer(("127.0.0.2", 0), Unknown)
    threading.Thread(target=other.serve_forever, daemon=True).start()
    elsewhere = f"127.0.0.2:{host.asked_at}"
    asked = {
        "listen": elsewhere, "answers": f"127.0.0.2:{other.server_port}",
        "peers": [elsewhere, f"127.0.0.1:{host.asked_at}"], "order": {"names": [name]},
    }  # fmt: skip
    with gateways.running(tmp_path, hosts=1, certificate=begins_with.together, acme=asked) as gateway:
        place = replace(
            host.order.place, config=tmp_path / "haproxy.cfg", usage=tmp_path / "gateway.lua",
            certificate=tmp_path / "gateway.pem", engine_key=None,
        )  # fmt: skip
        ordered = replace(
            host.order, names=(name,), place=place, unit="glm-gateway.service", socket=str(tmp_path / "master.sock")
        )

        def brought() -> dict[str, object]:
            return order.brought(ordered, False, lambda: gateway.process.send_signal(signal.SIGUSR2))

        host.brought()
        before = host.order.place.certificate.read_text()
        first = brought()
        assert (first["changed"], first["reason"]) == (True, "none was ordered yet")
        assert not brought()["changed"] and not host.brought()["changed"]
        assert host.order.place.certificate.read_text() == before, "the door keeps its own"
        context = host.trusting()
        with (
            socket.create_connection(("127.0.0.1", gateway.port), timeout=PATIENCE_SECONDS) as plain,
            context.wrap_socket(plain, server_hostname=name) as client,
        ):
            client.sendall(f"GET /v1/models HTTP/1.1\r\nHost: {name}\r\nConnection: close\r\n\r\n".encode())
            assert client.makefile("rb").readline().split()[1] == b"200"
        with urllib.request.urlopen(f"http://127.0.0.1:{gateway.monitor}/metrics/certificate", timeout=60) as metrics:
            left = float(metrics.read().split()[-1])
        assert abs(left - (float(str(first["ends"])) - time.time())) < 60
        # Nobody knows it: the hosts do not ask each other for ever.
        connection = http.client.HTTPConnection("127.0.0.2", host.asked_at, timeout=PATIENCE_SECONDS)
        connection.request("GET", TOKEN)
        assert connection.getresponse().status == 404
    other.shutdown()
    other.server_close()


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("gone.example.com", ["could not check gone.example.com (connection)", "could not resolve", "leads nowhere"]),
        ("other.example.com", ["could not check other.example.com (connection)", "refused"]),
    ],
)
def test_a_name_that_does_not_lead_to_the_host_is_named_with_what_the_authority_said(
    host: Host, name: str, words: list[str]
) -> None:
    host.pebble.no_answer_for("gone.example.com")
    host.pebble.leads_to("other.example.com", "127.0.0.9")
    before = host.order.place.certificate.read_text()
    wrong = replace(host.order, names=(name,))
    with pytest.raises(Unmet) as refused:
        host.brought(wrong)
    assert all(word in str(refused.value) for word in words), str(refused.value)
    assert "have the names lead to this host (127.0.0.1), and open port 80" in refused.value.next_step
    orders = host.pebble.orders()
    with pytest.raises(Unmet, match=r"an order failed 0 min ago: that the authority could not.*is asked again after"):
        host.brought(wrong)
    assert host.pebble.orders() == orders, "an authority that refused is left alone for a while"
    assert host.order.place.certificate.read_text() == before and host.asks(host.trusting()) == 200


def test_a_directory_that_is_not_trusted_is_said_with_the_variable(host: Host) -> None:
    with pytest.raises(Unmet, match=r"the directory's certificate is not trusted") as refused:
        host.brought(replace(host.order, names=("third.example.com",), authorities=""))
    assert "set glm_tls_ca" in refused.value.next_step


def test_a_directory_that_is_down_leaves_the_certificate_and_is_said(
    host: Host, shipped: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    host.pebble.stop()
    before = host.order.place.certificate.read_text()
    assert host.brought()["reason"] == "", "nobody is asked while the certificate is not due"
    monkeypatch.setattr(order, "RENEW_SHARE", 2)
    kept = host.brought()
    assert not kept["changed"] and "the directory does not answer" in str(kept["caution"])
    assert "glm_acme_directory" in str(kept["caution"]) and "serves until" in str(kept["caution"])
    assert host.order.place.certificate.read_text() == before and host.asks(host.trusting()) == 200
    assert "an order failed 0 min ago" in str(host.brought()["caution"])
    done = run(shipped, replace(host.order, names=("new.example.com",)), tmp_path)
    assert done.returncode == 1 and "the directory does not answer" in done.stderr, done
