"""Faults on demand, the rate limit and the counters of the Lambda Cloud simulator, and its control endpoint."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

import pytest
import requests
from lambda_cloud_client import REGION, TYPE, Client

from simulator.lambda_cloud import faults
from simulator.lambda_cloud.faults import AFTER, BEFORE
from simulator.lambda_cloud.server import control_call, running
from tests.patience import PATIENCE_SECONDS

LAUNCH = "/instance-operations/launch"


@pytest.fixture
def client() -> Iterator[Client]:
    with running() as (_, handle):
        made = Client(handle)
        made.add_key()
        yield made


# Faults


@pytest.mark.parametrize("retry_after", [None, "7", "Wed, 21 Oct 2026 07:28:00 GMT"])
def test_rate_limited(client: Client, retry_after: str | None) -> None:
    client.handle.fault("rate-limited", times=2, **({} if retry_after is None else {"retry_after": retry_after}))
    for _ in range(2):
        answer = client.call("GET", "/instances")
        assert answer.status_code == 429
        assert answer.headers.get("Retry-After") == retry_after
        assert "code" in answer.json()["error"]
    assert client.call("GET", "/instances").status_code == 200


def test_errors_and_unavailable(client: Client) -> None:
    client.handle.fault("error")
    assert client.error("GET", "/instances")[:2] == (500, "global/internal-error")
    client.handle.fault("error", code="provider/on-fire", status=502, message="Smoke.")
    assert client.error("GET", "/instances") == (502, "provider/on-fire", "Smoke.")
    client.handle.fault("unavailable")
    assert client.error("GET", "/instances")[:2] == (503, "provider/internal-unavailable")


def test_html_refusal(client: Client) -> None:
    client.handle.fault("html")
    answer = client.call("GET", "/instances")
    assert (answer.status_code, answer.headers["Content-Type"]) == (403, "text/html; charset=UTF-8")
    assert answer.text.startswith("<!DOCTYPE html>")


def test_raw_answers(client: Client) -> None:
    for body in ("", "null", "[1]", '{"data": 5}', "not json"):
        client.handle.fault("raw", body=body)
        answer = client.call("GET", "/instances")
        assert (answer.status_code, answer.text) == (200, body)
    client.handle.fault("raw", status=504, body="gateway", content_type="text/plain")
    answer = client.call("GET", "/instances")
    assert (answer.status_code, answer.headers["Content-Type"]) == (504, "text/plain")


def test_redirect(client: Client) -> None:
    client.handle.fault("redirect", location="http://192.0.2.1/api/v1/instances")
    answer = client.call("GET", "/instances", allow_redirects=False)
    assert (answer.status_code, answer.headers["Location"]) == (301, "http://192.0.2.1/api/v1/instances")


def test_half_a_body(client: Client) -> None:
    whole = client.call("GET", "/images").content
    client.handle.fault("truncated", path="/images$")
    with pytest.raises(requests.exceptions.ChunkedEncodingError, match="IncompleteRead") as caught:
        client.call("GET", "/images")
    assert f"{len(whole) // 2} bytes read" in str(caught.value)
    assert client.call("GET", "/images").content == whole


def test_lost_answer_after_a_launch_that_succeeded(client: Client) -> None:
    client.handle.fault("answer-lost", method="POST", path="/launch$")
    with pytest.raises(requests.exceptions.ConnectionError):
        client.call("POST", LAUNCH, json=client.launch_body(name="ambiguous"))
    assert [row["name"] for row in client.data("GET", "/instances")] == ["ambiguous"]


def test_a_late_error_after_a_launch_that_succeeded(client: Client) -> None:
    client.handle.fault("late-error", method="POST", path="/launch$")
    status, code, _message = client.error("POST", LAUNCH, client.launch_body(name="ambiguous"))
    assert (status, code) == (500, "global/internal-error")
    assert [row["name"] for row in client.data("GET", "/instances")] == ["ambiguous"]


def test_reset_before_a_launch_leaves_nothing(client: Client) -> None:
    client.handle.fault("reset", method="POST", path="/launch$")
    with pytest.raises(requests.exceptions.ConnectionError):
        client.call("POST", LAUNCH, json=client.launch_body())
    assert client.data("GET", "/instances") == []


def test_hang_times_the_client_out_and_has_no_effect(client: Client) -> None:
    client.handle.fault("hang", path="/launch$", seconds=20)
    with pytest.raises(requests.exceptions.ReadTimeout):
        client.call("POST", LAUNCH, json=client.launch_body(), timeout=0.3)
    assert client.data("GET", "/instances") == []


def test_hang_ends_with_the_server() -> None:
    started = time.monotonic()
    with running() as (_, handle):
        client = Client(handle)
        handle.fault("hang", seconds=2 * PATIENCE_SECONDS)
        with pytest.raises(requests.exceptions.ReadTimeout):
            client.call("GET", "/instances", timeout=0.2)
    assert time.monotonic() - started < 60


def test_slow_answers_take_effect_at_once(client: Client) -> None:
    client.handle.fault("slow", path="/launch$", seconds=0.4)
    started = time.monotonic()
    client.launch()
    assert time.monotonic() - started >= 0.4
    client.handle.fault("slow", path="/launch$", seconds=2 * PATIENCE_SECONDS)
    started = time.monotonic()
    with pytest.raises(requests.exceptions.ReadTimeout):
        client.call("POST", LAUNCH, json=client.launch_body(), timeout=0.3)
    while len(client.data("GET", "/instances")) < 2:
        assert time.monotonic() - started < 60
        time.sleep(0.02)


def test_faults_strike_what_matches_in_order(client: Client) -> None:
    client.handle.fault("unavailable", method="post", path="/ssh-keys")
    client.handle.fault("error", path="^/api/v1/(images|regions)$", times=2, after=1)
    client.handle.fault("html", path="/regions")
    assert client.call("GET", "/ssh-keys").status_code == 200
    assert client.call("POST", "/ssh-keys", json={"name": "a"}).status_code == 503
    found = [client.call("GET", path).status_code for path in ("/regions", "/images", "/regions", "/images")]
    assert found == [403, 500, 500, 200], "a fault that lets a request pass leaves it to the next fault"
    assert client.handle.control("GET", "/faults") == []


def test_faults_can_be_seen_and_forgotten(client: Client) -> None:
    number = client.handle.fault("unavailable", times=3)
    client.call("GET", "/instances")
    (pending,) = client.handle.control("GET", "/faults")
    assert (pending["id"], pending["kind"], pending["times"], pending["hits"]) == (number, "unavailable", 3, 1)
    client.handle.control("DELETE", "/faults")
    assert client.call("GET", "/instances").status_code == 200


@pytest.mark.parametrize(
    ("values", "named"),
    [
        ({}, "fault.kind"),
        ({"kind": "earthquake"}, "earthquake"),
        ({"kind": "error", "colour": "red"}, "colour"),
        ({"kind": "error", "id": 1}, "id"),
        ({"kind": "error", "times": 0}, "fault.times"),
        ({"kind": "error", "times": "2"}, "fault.times"),
        ({"kind": "error", "after": -1}, "fault.after"),
        ({"kind": "error", "status": 99}, "fault.status"),
        ({"kind": "error", "path": "("}, "fault.path"),
        ({"kind": "error", "method": 5}, "fault.method"),
        ({"kind": "hang", "seconds": -1}, "fault.seconds"),
        ({"kind": "hang", "seconds": "long"}, "fault.seconds"),
    ],
)
def test_bad_faults_are_named(client: Client, values: dict[str, Any], named: str) -> None:
    with pytest.raises(ValueError, match=named):
        client.handle.control("POST", "/faults", values)
    assert client.handle.control("GET", "/faults") == []


def test_every_kind_of_fault_is_exercised_here() -> None:
    exercised = {
        "rate-limited",
        "error",
        "unavailable",
        "capacity-lost",
        "html",
        "raw",
        "redirect",
        "reset",
        "hang",
        "truncated",
        "answer-lost",
        "late-error",
        "slow",
    }
    assert exercised == set(BEFORE) | set(AFTER)


# Pacing


class Ticking:
    """A clock by which requests are a hundredth of a second apart, and what is slept."""

    now = 0.0

    def monotonic(self) -> float:
        self.now += 0.01
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += seconds


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Ticking:
    made = Ticking()
    monkeypatch.setattr(faults, "time", made)
    return made


def test_pacing_is_counted_without_a_limit(clock: Ticking, client: Client) -> None:
    client.handle.control("DELETE", "/counters")
    client.session.headers["User-Agent"] = "fleet/1"
    for _ in range(3):
        client.data("GET", "/instances")
    clock.sleep(0.2)
    client.call("GET", "/nothing")
    client.launch()
    client.launch()
    pacing = client.handle.state()["pacing"]
    assert pacing["counts"] == {"listInstances": 3, "global/not-found": 1, "launchInstance": 2}
    assert pacing["total"] == 6
    assert 0 < pacing["smallest_gap_seconds"] < 0.2
    assert pacing["smallest_launch_gap_seconds"] < 12
    assert (pacing["too_fast"], pacing["too_fast_launches"]) == (5, 1)
    first = pacing["requests"][0]
    assert (first["method"], first["path"], first["status"], first["user_agent"]) == (
        "GET",
        "/api/v1/instances",
        200,
        "fleet/1",
    )


def test_a_lost_answer_is_counted_as_status_0(client: Client) -> None:
    client.handle.fault("answer-lost")
    with pytest.raises(requests.exceptions.ConnectionError):
        client.call("GET", "/instances")
    assert client.handle.state()["pacing"]["requests"][-1]["status"] == 0


def test_the_rate_limit(clock: Ticking, client: Client) -> None:
    client.handle.control("DELETE", "/counters")
    client.handle.settings(rate_limit=True, request_interval=0.5, rate_tolerance=0.0)
    assert client.call("GET", "/instances").status_code == 200
    refused = client.call("GET", "/instances")
    assert (refused.status_code, refused.headers["Retry-After"]) == (429, "1")
    clock.sleep(0.5)
    assert client.call("GET", "/instances").status_code == 200, "a refused request does not push the next back"
    client.handle.settings(retry_after=False)
    refused = client.call("GET", "/regions")
    assert refused.status_code == 429
    assert "Retry-After" not in refused.headers


@pytest.mark.usefixtures("clock")
def test_the_launch_limit_is_slower(client: Client) -> None:
    client.handle.control("DELETE", "/counters")
    client.handle.settings(rate_limit=True, request_interval=0.0, launch_interval=12.0)
    client.launch()
    refused = client.call("POST", LAUNCH, json=client.launch_body())
    assert refused.status_code == 429
    assert 10 <= int(refused.headers["Retry-After"]) <= 12
    assert len(client.data("GET", "/instances")) == 1
    client.handle.settings(launch_interval=0.0)
    client.launch()


# The control endpoint


def test_the_control_endpoint_needs_its_own_token(client: Client) -> None:
    url = client.handle.base_url + "/_simulator"
    assert requests.get(f"{url}/health", timeout=PATIENCE_SECONDS).json() == {"data": {"ok": True}}
    for headers in ({}, {"X-Simulator-Token": "x"}, {"Authorization": f"Bearer {client.handle.api_key}"}):
        for method, path in (("GET", "/state"), ("POST", "/faults"), ("DELETE", "/instances")):
            answer = requests.request(method, url + path, headers=headers, timeout=PATIENCE_SECONDS)
            assert (answer.status_code, answer.json()["error"]["code"]) == (403, "global/forbidden")


def test_the_state_shows_no_secret(client: Client) -> None:
    instance = client.launch()
    token = client.wait_active(instance)["jupyter_token"]
    state = str(client.handle.state())
    assert instance in state
    for secret in (token, client.handle.api_key, client.handle.world.config.control_token):
        assert secret not in state


@pytest.mark.parametrize(
    ("method", "path", "body", "named"),
    [
        ("GET", "/nothing", None, "GET /nothing"),
        ("PATCH", "/settings", {"colour": "red"}, "unknown key 'colour'"),
        ("PATCH", "/settings", {"page_size": "big"}, "settings.page_size"),
        ("PATCH", "/settings", {"page_size": 0}, "settings.page_size"),
        ("PATCH", "/settings", {"rate_limit": 1}, "settings.rate_limit"),
        ("PATCH", "/settings", {"boot_seconds": -1}, "settings.boot_seconds"),
        ("PATCH", "/settings", {"boot_seconds": True}, "settings.boot_seconds"),
        ("PATCH", "/settings", {"account": "closed"}, "settings.account"),
        ("PUT", "/capacity", {"gpu_8x_h900": {REGION: 1}}, "gpu_8x_h900"),
        ("PUT", "/capacity", {TYPE: {"mars-1": 1}}, "mars-1"),
        ("PUT", "/capacity", {TYPE: {REGION: -1}}, "-1"),
        ("PUT", "/capacity", {TYPE: 3}, "mapping"),
        ("POST", "/instances", {"colour": "red"}, "colour"),
        ("POST", "/instances", {"count": 0}, "count"),
        ("POST", "/instances", {"instance_type": "gpu_8x_h900"}, "gpu_8x_h900"),
        ("POST", "/instances", {"status": "asleep"}, "asleep"),
        ("POST", "/instances", {"tags": ["a"]}, "tags"),
        ("PATCH", "/instances/0", {"status": "active"}, "does not exist"),
    ],
)
def test_control_mistakes_are_named(client: Client, method: str, path: str, body: Any, named: str) -> None:
    with pytest.raises(ValueError, match=named):
        client.handle.control(method, path, body)


def test_a_control_body_must_be_an_object(client: Client) -> None:
    handle = client.handle
    headers = {"X-Simulator-Token": handle.world.config.control_token}
    for raw in (b"{", b"[]"):
        answer = requests.post(
            f"{handle.base_url}/_simulator/faults", data=raw, headers=headers, timeout=PATIENCE_SECONDS
        )
        assert answer.status_code == 400


def test_settings_change_all_or_none(client: Client) -> None:
    with pytest.raises(ValueError, match="colour"):
        client.handle.settings(page_size=7, colour="red")
    assert client.handle.state()["settings"]["page_size"] == 50
    client.handle.settings(boot_seconds=2, instance_quota=None)
    assert client.handle.state()["settings"]["boot_seconds"] == 2


def test_seeded_instances_are_what_a_test_wants(client: Client) -> None:
    ids = client.handle.seed(count=3, name="node-{n}", region="us-west-1", tags={"fleet": "a"})
    (odd,) = client.handle.seed(
        name=None, overrides={"region": {"name": "{{ evil }}"}, "ip": None}, omit=["private_ip", "tags"]
    )
    rows = {row["id"]: row for row in client.data("GET", "/instances")}
    assert [rows[number]["name"] for number in ids] == ["node-0", "node-1", "node-2"]
    assert len({rows[number]["ip"] for number in ids}) == 3
    assert rows[ids[0]]["tags"] == [{"key": "fleet", "value": "a"}]
    assert rows[ids[0]]["region"]["name"] == "us-west-1"
    assert "jupyter_token" in rows[ids[0]]
    assert rows[odd]["region"] == {"name": "{{ evil }}"}
    assert rows[odd]["ip"] is None
    assert not {"name", "private_ip", "tags"} & set(rows[odd])
    assert client.handle.state()["capacity_used"] == {}, "seeds take no capacity"


@pytest.mark.parametrize("status", ["booting", "active", "unhealthy", "terminating", "terminated", "preempted"])
def test_a_seed_keeps_its_status(client: Client, status: str) -> None:
    (instance,) = client.handle.seed(status=status)
    for _ in range(4):
        view = client.get(instance)
        assert view["status"] == status
        assert ("ip" in view) == (status in ("active", "unhealthy"))


def test_a_seed_can_be_terminated(client: Client) -> None:
    (instance,) = client.handle.seed()
    client.terminate(instance)
    for _ in range(3):
        rows = client.data("GET", "/instances")
    assert rows == []


def test_all_hosts_can_be_removed(client: Client) -> None:
    ids = [client.launch() for _ in range(3)]
    client.handle.seed(count=2)
    assert client.handle.control("DELETE", "/instances") == {"removed": 5}
    assert client.data("GET", "/instances") == []
    assert {client.handle.backend.poll(instance).phase for instance in ids} == {"failed"}
    assert client.handle.state()["capacity_used"] == {f"{TYPE}/{REGION}": 0}


def test_control_call_needs_the_right_token(client: Client) -> None:
    with pytest.raises(ValueError, match="X-Simulator-Token"):
        control_call(client.handle.base_url, "wrong", "GET", "/state")
    assert control_call(client.handle.base_url, "control", "GET", "/state")["instances"] == []


def test_five_thousand_instances_are_listed_quickly(client: Client) -> None:
    client.handle.seed(count=5000)
    # Of this process, in which the simulator is as well: what other programs take does not count.
    started = time.process_time()
    rows = client.data("GET", "/instances")
    assert len(rows) == 5000
    assert len({row["ip"] for row in rows}) == 5000
    # Measured 0.3 s on 2 cores; a listing that takes seconds would hide the cost of the clients under test.
    assert time.process_time() - started < 3


# HTTP itself


def test_an_oversized_body_is_refused(client: Client) -> None:
    answer = client.call("POST", "/ssh-keys", data=b"", headers={"Content-Length": str(10**9)})
    assert answer.status_code == 400
    assert answer.json()["error"]["code"] == "global/invalid-parameters"


def test_head_and_options_are_refused_without_confusing_the_connection(client: Client) -> None:
    assert client.call("HEAD", "/instances").status_code == 405
    assert client.call("OPTIONS", "/instances").status_code == 405
    assert client.call("GET", "/instances").status_code == 200


def test_a_failure_of_the_simulator_is_a_500(client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(client.handle.world, "free_capacity", lambda name, region: 1 / 0)
    assert client.error("GET", "/instance-types")[:2] == (500, "global/internal-error")
    assert client.handle.state()["pacing"]["requests"][-1]["status"] == 500
