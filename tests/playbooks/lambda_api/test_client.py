"""The Lambda Cloud client against a real HTTP server that misbehaves in every way the API is known to."""

from __future__ import annotations

import email.utils
import json
import multiprocessing
import os
import threading
import time
import types
from collections.abc import Iterator
from pathlib import Path

import pytest

from ansible_collections.glm.fleet.plugins.module_utils import versions
from ansible_collections.glm.fleet.plugins.module_utils.cloud import api as _cloud_api
from ansible_collections.glm.fleet.plugins.module_utils.cloud.lambda_cloud import api as lambda_api
from tests.playbooks.lambda_api.fake_cloud import KEY, Answer, FakeCloud, data, error, make_instance, serve


@pytest.fixture
def cloud() -> Iterator[FakeCloud]:
    with serve() as running:
        running.instances = [make_instance(1), make_instance(2)]
        yield running


def client(cloud: FakeCloud, waits: list[float] | None = None, **options: object) -> lambda_api.LambdaApi:
    pacer = _cloud_api.Pacer(KEY, request_interval=0, launch_interval=0)
    sleep = (waits if waits is not None else []).append
    return lambda_api.LambdaApi(**{"api_key": KEY, "base_url": cloud.url, "pacer": pacer, "sleep": sleep, **options})


def test_lists_instances_with_the_key_and_its_own_user_agent(cloud: FakeCloud) -> None:
    assert [item["name"] for item in client(cloud).list_instances()] == ["node-1", "node-2"]
    assert len(cloud.requests) == 1
    assert cloud.requests[0].headers["Authorization"] == f"Bearer {KEY}"
    assert cloud.requests[0].headers["User-Agent"] == f"glm.fleet/{versions.COLLECTION}"


def test_version_is_the_collections() -> None:
    galaxy = (Path(__file__).parents[3] / "galaxy.yml").read_text(encoding="utf-8")
    assert f"version: {versions.COLLECTION}\n" in galaxy


def test_netrc_does_not_replace_the_key(cloud: FakeCloud, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "netrc").write_text("machine 127.0.0.1 login someone password else\n", encoding="utf-8")
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    api = client(cloud)
    api._session.trust_env = True
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    assert len(api.list_instances()) == 2


def test_wrong_key_is_an_auth_error_at_once(cloud: FakeCloud) -> None:
    with pytest.raises(_cloud_api.AuthError, match=r"invalid-api-key.*cloud\.lambda\.ai/api-keys") as caught:
        client(cloud, api_key="wrong").list_instances()
    assert caught.value.status == 401
    assert len(cloud.requests) == 1


@pytest.mark.parametrize(
    ("headers", "expected"),
    [({}, 1.0), ({"Retry-After": "7"}, 7.0), ({"Retry-After": "86400"}, _cloud_api.RETRY_AFTER_CAP)],
)
def test_429_waits_as_told_and_no_longer_than_the_cap(
    cloud: FakeCloud, headers: dict[str, str], expected: float
) -> None:
    cloud.script = [error(429, "global/too-many-requests", **headers)]
    waits: list[float] = []
    assert len(client(cloud, waits).list_instances()) == 2
    assert waits == [expected]


def test_retry_after_as_a_date() -> None:
    now = 1_800_000_000.0
    assert _cloud_api.parse_retry_after(email.utils.formatdate(now + 20, usegmt=True), now) == 20
    assert _cloud_api.parse_retry_after(email.utils.formatdate(now - 20, usegmt=True), now) == 0
    for unusable in (None, "", "soon", "nan"):
        assert _cloud_api.parse_retry_after(unusable, now) is None


def test_429_for_ever_is_loud(cloud: FakeCloud) -> None:
    cloud.handler = lambda _request: error(429, "global/too-many-requests")
    waits: list[float] = []
    with pytest.raises(_cloud_api.RateLimited, match="gave up after 6 attempts"):
        client(cloud, waits).list_instances()
    assert waits == [1, 2, 4, 8, 16]


@pytest.mark.parametrize(
    "failure",
    [
        error(500, "global/internal-error"),
        error(400, "provider/internal-unavailable"),
        Answer(502, b"<html>bad gateway</html>"),
        Answer(200, json.dumps({"data": [make_instance(1)]}).encode(), cut=True),
        Answer(200, b'{"data": [{"id": "1", '),
        Answer(200, b"<html>hello</html>"),
        Answer(200, b'{"instances": []}'),
    ],
    ids=["500", "provider", "gateway page", "connection cut", "half a body", "web page", "no data"],
)
def test_passing_trouble_is_repeated_and_lasting_trouble_is_loud(cloud: FakeCloud, failure: Answer) -> None:
    cloud.script = [failure, failure]
    assert len(client(cloud).list_instances()) == 2
    assert len(cloud.requests) == 3
    cloud.handler = lambda _request: failure
    with pytest.raises(lambda_api.LambdaError, match="gave up after 3 attempts"):
        client(cloud, retries=2).list_instances()


def test_half_a_body_is_a_bad_answer(cloud: FakeCloud) -> None:
    cloud.handler = lambda _request: Answer(200, json.dumps({"data": []}).encode(), cut=True)
    with pytest.raises(_cloud_api.BadAnswer, match=r"before the whole answer arrived|not the API's JSON"):
        client(cloud, retries=0).list_instances()


def test_an_entry_without_id_spoils_the_answer(cloud: FakeCloud) -> None:
    cloud.instances = [make_instance(1), {"name": "no id"}]
    with pytest.raises(_cloud_api.BadAnswer, match="entry 1 of 2 has no usable id"):
        client(cloud, retries=0).list_instances()


def test_html_403_explains_and_is_not_repeated(cloud: FakeCloud) -> None:
    cloud.handler = lambda _request: Answer(403, b"<html>error code: 1010</html>", {"Content-Type": "text/html"})
    with pytest.raises(_cloud_api.BadAnswer, match=r"error code: 1010.*User-Agent glm\.fleet/"):
        client(cloud).list_instances()
    assert len(cloud.requests) == 1


def test_api_error_carries_code_message_and_suggestion(cloud: FakeCloud) -> None:
    body = {"error": {"code": "global/invalid-parameters", "message": "No.", "suggestion": "Try yes."}}
    cloud.handler = lambda _request: Answer(400, json.dumps(body).encode())
    with pytest.raises(_cloud_api.ApiError, match=r"global/invalid-parameters: No\. .*Try yes\.") as caught:
        client(cloud).list_instances()
    assert (caught.value.code, caught.value.message, caught.value.suggestion) == (
        "global/invalid-parameters",
        "No.",
        "Try yes.",
    )
    assert len(cloud.requests) == 1


def test_a_redirect_does_not_get_the_key(cloud: FakeCloud) -> None:
    with serve() as elsewhere:
        target = f"{elsewhere.url}/api/v1/instances"
        cloud.handler = lambda _request: Answer(301, b"", {"Location": target})
        with pytest.raises(_cloud_api.BadAnswer, match=f"redirected to {target}.*set base_url"):
            client(cloud).list_instances()
        assert elsewhere.requests == []
    assert len(cloud.requests) == 1


def test_nobody_listening_is_a_transport_error() -> None:
    with serve() as gone:
        pass
    waits: list[float] = []
    with pytest.raises(_cloud_api.TransportError, match="gave up after 3 attempts"):
        client(gone, waits, retries=2).list_instances()
    assert waits == [1, 2]


def test_an_error_is_not_its_own_cause(cloud: FakeCloud) -> None:
    with pytest.raises(_cloud_api.TransportError) as caught:
        client(cloud, base_url="https://cloud.lamda.invalid", retries=5).list_instances()
    assert str(caught.value) == (
        "GET https://cloud.lamda.invalid/api/v1/instances: no answer: the name cloud.lamda.invalid cannot be resolved. "
        "Check the spelling of base_url, and the DNS and network of this machine. (gave up after 6 attempts)"
    )
    assert caught.value.__cause__ is None and caught.value.__suppress_context__


def test_our_advice_is_not_called_the_api_s() -> None:
    ours = _cloud_api.AuthError("GET x", 401, "c", "m", "", "make a key.")
    assert str(ours) == "GET x: HTTP 401 c: m. Next: make a key."
    assert ours.suggestion == ""
    theirs = _cloud_api.AuthError("GET x", 401, "c", "m", "Use the console.", "make a key.")
    assert str(theirs) == "GET x: HTTP 401 c: m Suggestion from the API: Use the console."


def test_a_silent_server_is_given_up(cloud: FakeCloud) -> None:
    def stall(_request: object) -> Answer:
        time.sleep(0.5)
        return data([])

    cloud.handler = stall
    with pytest.raises(_cloud_api.TransportError, match="no answer"):
        client(cloud, retries=0, timeout=0.1).list_instances()


def test_the_budget_ends_the_repeats(cloud: FakeCloud) -> None:
    cloud.handler = lambda _request: error(429, "global/too-many-requests", **{"Retry-After": "30"})
    waits: list[float] = []
    with pytest.raises(_cloud_api.RateLimited, match="gave up after 1 attempt"):
        client(cloud, waits, budget=10).list_instances()
    assert waits == []


@pytest.mark.parametrize(
    ("failure", "kind", "unknown"),
    [
        (error(400, lambda_api.CAPACITY_CODE), lambda_api.CapacityError, False),
        (error(429, "global/too-many-requests"), _cloud_api.RateLimited, False),
        (error(400, "global/quota-exceeded"), _cloud_api.ApiError, False),
        (error(500, "global/internal-error"), _cloud_api.ApiError, True),
        (data({"instance_ids": []}), _cloud_api.BadAnswer, True),
        (Answer(200, b'{"data": {"instance_ids": ["1"]}}', cut=True), lambda_api.LambdaError, True),
    ],
    ids=["capacity", "429", "quota", "500", "no ids", "cut"],
)
def test_a_launch_is_sent_once(
    cloud: FakeCloud, failure: Answer, kind: type[lambda_api.LambdaError], unknown: bool
) -> None:
    cloud.handler = lambda _request: failure
    with pytest.raises(kind) as caught:
        client(cloud).launch({"name": "x"})
    assert caught.value.outcome_unknown is unknown
    assert [(request.method, request.body) for request in cloud.requests] == [("POST", {"name": "x"})]


@pytest.mark.parametrize("url", ["cloud.lambda.ai", "ftp://x", "https://"])
def test_a_bad_base_url_is_refused(url: str) -> None:
    with pytest.raises(ValueError, match="base_url"):
        lambda_api.LambdaApi(KEY, url, _cloud_api.Pacer(KEY, 0))


@pytest.mark.parametrize("url", ["http://cloud.lambda.ai", "http://10.0.0.5:8430", "http://127.0.0.1.example.com"])
def test_no_key_goes_over_plain_http_to_another_machine(url: str) -> None:
    with pytest.raises(ValueError, match=f"the API key would cross the network in clear, found '{url}'. Next: set"):
        lambda_api.LambdaApi(KEY, url, _cloud_api.Pacer(KEY, 0))


def test_a_key_with_a_line_end_is_refused() -> None:
    with pytest.raises(ValueError, match="Copy it again"):
        lambda_api.LambdaApi("abc\ndef", lambda_api.DEFAULT_BASE_URL, _cloud_api.Pacer(KEY, 0))


@pytest.mark.parametrize("text", ["thekey\n", "# note\nthekey\n", "[x]\napi_key = thekey\n", 'api_key = "thekey"\n'])
def test_key_files(tmp_path: Path, text: str) -> None:
    (tmp_path / "key").touch(0o600)
    (tmp_path / "key").write_text(text, encoding="utf-8")
    assert _cloud_api.read_api_key(str(tmp_path / "key")) == "thekey"


@pytest.mark.parametrize("text", ["", "two\nlines\n", "other = thing\n"])
def test_key_files_without_a_key(tmp_path: Path, text: str) -> None:
    (tmp_path / "key").touch(0o600)
    (tmp_path / "key").write_text(text, encoding="utf-8")
    with pytest.raises(lambda_api.LambdaError, match="holds no key"):
        _cloud_api.read_api_key(str(tmp_path / "key"))
    with pytest.raises(lambda_api.LambdaError, match="cannot be read"):
        _cloud_api.read_api_key(str(tmp_path / "absent"))


@pytest.mark.parametrize("mode", [0o644, 0o640, 0o604, 0o622])
def test_a_key_file_that_others_can_read_is_refused(tmp_path: Path, mode: int) -> None:
    (tmp_path / "key").write_text("thekey\n", encoding="utf-8")
    (tmp_path / "key").chmod(mode)
    with pytest.raises(lambda_api.LambdaError, match=rf"mode {mode:04o}. Next: chmod 600 {tmp_path}/key") as caught:
        _cloud_api.read_api_key(str(tmp_path / "key"))
    assert "thekey" not in str(caught.value)


def test_a_key_may_come_from_a_pipe(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "key", 0o644)
    writer = threading.Thread(target=(tmp_path / "key").write_text, args=("thekey\n",))
    writer.start()
    assert _cloud_api.read_api_key(str(tmp_path / "key")) == "thekey"
    writer.join()


def stop_time() -> None:
    """For this process: slots are counted from now, however long it takes to ask for them."""
    now = time.time()
    _cloud_api.time = types.SimpleNamespace(**{**vars(time), "time": lambda: now})


@pytest.fixture
def _stopped(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_cloud_api, "time", time)
    stop_time()


@pytest.mark.usefixtures("_stopped")
def test_slots_follow_each_other_and_launches_have_their_own(tmp_path: Path) -> None:
    first = _cloud_api.Pacer(KEY, request_interval=1, launch_interval=12, directory=tmp_path)
    second = _cloud_api.Pacer(KEY, request_interval=1, launch_interval=12, directory=tmp_path)
    other = _cloud_api.Pacer("another key", request_interval=1, launch_interval=12, directory=tmp_path)
    assert first.reserve("request") == 0
    assert second.reserve("request") == pytest.approx(1, abs=0.2)
    assert first.reserve("request") == pytest.approx(2, abs=0.2)
    assert first.reserve("launch") == 0
    assert second.reserve("launch") == pytest.approx(12, abs=0.2)
    assert other.reserve("request") == 0
    assert KEY not in "".join(path.name + path.read_text(encoding="utf-8") for path in tmp_path.iterdir())


def reserve_many(directory: Path, results: multiprocessing.Queue[list[float]]) -> None:
    stop_time()
    pacer = _cloud_api.Pacer(KEY, request_interval=5, directory=directory)
    results.put([_cloud_api.time.time() + pacer.reserve("request") for _ in range(10)])


def test_processes_share_the_pace(tmp_path: Path) -> None:
    context = multiprocessing.get_context("fork")
    results: multiprocessing.Queue[list[float]] = context.Queue()
    processes = [context.Process(target=reserve_many, args=(tmp_path, results)) for _ in range(4)]
    for process in processes:
        process.start()
    slots = sorted(slot for _process in processes for slot in results.get(timeout=300))
    for process in processes:
        process.join()
    gaps = [later - earlier for earlier, later in zip(slots, slots[1:])]
    assert len(slots) == 40
    assert min(gaps) == pytest.approx(5, abs=0.5)


@pytest.mark.usefixtures("_stopped")
@pytest.mark.parametrize("text", ["", "broken", "[1]", '{"request": 99999999999}', '{"request": "x"}'])
def test_a_damaged_pace_file_does_not_stop_anything(tmp_path: Path, text: str) -> None:
    pacer = _cloud_api.Pacer(KEY, request_interval=1, directory=tmp_path)
    pacer._file.write_text(text, encoding="utf-8")
    assert pacer.reserve("request") == 0
    assert pacer.reserve("request") == pytest.approx(1, abs=0.2)


@pytest.mark.usefixtures("_stopped")
def test_without_a_place_for_the_file_the_process_keeps_its_own_pace(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("", encoding="utf-8")
    pacer = _cloud_api.Pacer(KEY, request_interval=1, directory=tmp_path / "file" / "below")
    assert pacer.reserve("request") == 0
    assert pacer.reserve("request") == pytest.approx(1, abs=0.2)


def test_a_queue_longer_than_the_budget_is_an_error(cloud: FakeCloud, tmp_path: Path) -> None:
    pacer = _cloud_api.Pacer(KEY, request_interval=100, directory=tmp_path)
    pacer.reserve("request")
    with pytest.raises(lambda_api.LambdaError, match="queued for longer than 10 s"):
        client(cloud, pacer=pacer, budget=10).list_instances()
    assert cloud.requests == []


HOSTILE = "\x1b]0;owned\x07\x1b[2Jfull\u202e\x9b31m"


def test_what_a_cloud_says_is_no_command_for_a_terminal(cloud: FakeCloud) -> None:
    cloud.script = [error(400, "global/invalid-parameters", HOSTILE)]
    with pytest.raises(_cloud_api.ApiError) as caught:
        client(cloud).list_instances()
    assert str(caught.value).isprintable() and r"full\u202e" in str(caught.value)


def test_names_that_others_gave_are_no_command_for_a_terminal(cloud: FakeCloud) -> None:
    cloud.instances = [make_instance(1, name=HOSTILE, tags=[{"key": HOSTILE, "value": "a"}])]
    [found] = client(cloud).list_instances()
    assert found["name"] == r"full\u202e" and found["tags"][0]["key"] == r"full\u202e"


def test_a_redirect_is_named_and_not_obeyed_by_a_terminal(cloud: FakeCloud) -> None:
    cloud.script = [Answer(302, b"", {"Location": "https://evil.example/\x1b[2J"})]
    with pytest.raises(lambda_api.LambdaError, match=r"redirected to https://evil\.example/") as caught:
        client(cloud).list_instances()
    assert str(caught.value).isprintable()
