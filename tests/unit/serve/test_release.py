"""What passed is kept on its host: numbers, what is the same, what is forgotten, and that no secret is in it."""

from __future__ import annotations

import copy
import json
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from ansible_collections.glm.fleet.plugins.module_utils import files
from ansible_collections.glm.fleet.plugins.module_utils.finding import Unmet
from ansible_collections.glm.fleet.plugins.module_utils.serving import release
from ansible_collections.glm.fleet.plugins.modules import host_release
from ansible_collections.glm.fleet.plugins.plugin_utils.serving import replica
from tests.unit.serve.plans import REVISION, RUNS, plan, replicas, venv

UNIT = "/etc/systemd/system/glm-serve-0.service"


def seen(mark: str = "1", **changes: Any) -> dict[str, Any]:
    """What runs of ``plan()``, started from a unit with this checksum."""
    started = {UNIT: mark, "/etc/glm/serve-0.env": "e", "/etc/glm/serve-0.secret.env": "s"}
    return {**RUNS, "words": replica.engine_words(plan()), "started": started, **changes}  # type: ignore[arg-type]


def made(mark: str = "1", at: str = "2026-11-29T10:00:00Z", plans: Any = None) -> release.Release:
    found = [release.observed(seen(mark), one) for one in plans or [plan()]]
    return {
        "schema": 1, "number": 0, "content_sha256": release.content(plans or [plan()], found), "made_at": at,
        "passed_at": at, "by": "ann@box", "collection": "0.2.0", "intent": {"glm_model": "GLM-5.1"}, "observed": found,
        "verdict": {"passed": 44, "made": 44}, "driver": None,
    }  # fmt: skip


@pytest.fixture
def store(tmp_path: Path) -> release.Store:
    return release.Store(tmp_path / "releases")


def test_what_passed_is_kept_with_its_plans_for_root_only(store: release.Store) -> None:
    kept, new = store.keep(made(), [plan()])
    assert new and (kept["number"], store.good()) == (1, 1)
    assert store.releases() == [kept] and store.plans(1) == [plan()]
    for path in (store.folder, store.folder / "1", store.folder / "1/plan.json", store.folder / "1/release.json"):
        assert not stat.S_IMODE(path.stat().st_mode) & 0o077, path
    assert kept["observed"][0]["weights"] == REVISION
    assert set(kept["observed"][0]["files"]) == {UNIT, "/etc/glm/serve-0.env"}


def test_the_same_again_is_the_same_release_with_a_new_time(store: release.Store) -> None:
    store.keep(made(), [plan()])
    kept, new = store.keep(made(at="2026-11-30T10:00:00Z"), [plan()])
    assert not new and (kept["number"], kept["made_at"], kept["passed_at"]) == (
        1, "2026-11-29T10:00:00Z", "2026-11-30T10:00:00Z",
    )  # fmt: skip
    assert len(store.releases()) == 1


def test_what_is_put_back_keeps_the_values_that_made_it(store: release.Store) -> None:
    """It passes again in a run that was asked for something else."""
    other: release.Release = {**made(at="2026-11-30T10:00:00Z"), "intent": {"glm_profile": "latency"}, "by": "bob@box"}
    store.keep(made(), [plan()])
    kept, new = store.keep(other, [plan()], intended=False)
    assert not new and (kept["intent"], kept["by"]) == ({"glm_model": "GLM-5.1"}, "bob@box")
    assert store.keep(other, [plan()])[0]["intent"] == {"glm_profile": "latency"}
    # What nobody kept before has no others.
    assert store.keep({**other, **made("2")}, [plan()], intended=False)[0]["intent"] == {"glm_model": "GLM-5.1"}


def test_prices_and_remarks_of_the_catalogue_make_no_release(store: release.Store) -> None:
    store.keep(made(), [plan()])
    dearer = plan(prices=[{"provider": "x", "usd_per_hour": 1.0, "date": ""}], notes=["text"])
    assert not store.keep(made(plans=[dearer]), [dearer])[1]
    assert store.keep(made(plans=[plan(served_model_name="other")]), [plan(served_model_name="other")])[1]


def test_what_starts_reported_makes_no_release(store: release.Store) -> None:
    store.keep(made(), [plan()])
    known = plan()
    known["memory"] = {**known["memory"], "own_basis": "reported", "starts": 2, "token_pool": 1}
    known["promises"] = {**known["promises"], "token_pool": 1}
    assert not store.keep(made(plans=[known]), [known])[1] and release.served([known]) == release.served([plan()])


def test_going_back_makes_an_earlier_release_the_last_that_passed(store: release.Store) -> None:
    for mark in ("1", "2"):
        store.keep(made(mark), [plan()])
    assert store.good() == 2
    store.keep(made("1"), [plan()])
    assert store.good() == 1 and [one["number"] for one in store.releases()] == [1, 2]
    assert store.keep(made("3"), [plan()])[0]["number"] == 3


def test_a_rollback_goes_from_the_newest_to_what_served_something_else_and_ends_there(store: release.Store) -> None:
    older, newer = plan(served_model_name="older"), plan(served_model_name="newer")
    assert store.before(None) is None
    store.keep(made("1", plans=[older]), [older])
    store.keep(made("2", plans=[newer]), [newer])
    # The same plan, of which a later collection wrote other files.
    store.keep(made("3", plans=[newer]), [newer])
    assert [store.before(installed) for installed in (3, 1, None)] == [1, 1, 3]
    store.begin_back(1)
    assert {store.before(installed) for installed in (3, 2, 1, None)} == {1}, "one that was begun is finished"
    kept, new = store.keep(made("4", plans=[older]), [older])
    assert (kept["number"], new, store.good()) == (1, False, 1), "whatever wrote its files"
    assert [store.before(installed) for installed in (1, 3)] == [1, 1]


def test_what_is_installed_shows_in_files_and_the_last_that_passed_counts_first(store: release.Store) -> None:
    for mark in ("1", "2"):
        store.keep(made(mark), [plan()])
    marks = {UNIT: "2", "/etc/glm/serve-0.env": "e"}
    assert store.installed(marks.get) == 2
    assert store.installed({**marks, UNIT: "1"}.get) == 1
    assert store.installed({UNIT: "2"}.get) is None, "a file that cannot be read"
    # Only what is not on the host changed, such as the door.
    store.keep(made("2", plans=[plan(served_model_name="other")]), [plan(served_model_name="other")])
    assert (store.good(), store.installed(marks.get)) == (3, 3)
    store.keep(made("2"), [plan()])
    assert (store.good(), store.installed(marks.get)) == (2, 2)


def test_ten_are_kept_and_the_last_that_passed_among_them(store: release.Store) -> None:
    for number in range(1, 15):
        store.keep(made(str(number)), [plan()])
    assert [one["number"] for one in store.releases()] == list(range(5, 15))
    store.keep(made("5"), [plan()])
    (store.folder / "15").mkdir()  # of a run that was interrupted
    store.keep(made("5"), [plan()])
    assert store.good() == 5 and store.plans(5)
    assert store.keep(made("new"), [plan()])[0]["number"] == 16


def test_a_release_without_its_last_file_is_none(store: release.Store, monkeypatch: pytest.MonkeyPatch) -> None:
    store.keep(made("1"), [plan()])
    write = files.write_json

    def dies(path: Path, value: Any, **options: Any) -> None:
        if path.name == "release.json":
            raise SystemExit(137)
        write(path, value, **options)

    monkeypatch.setattr(release.files, "write_json", dies)
    with pytest.raises(SystemExit):
        store.keep(made("2"), [plan()])
    monkeypatch.undo()
    assert (store.good(), [one["number"] for one in store.releases()]) == (1, [1])
    assert store.keep(made("2"), [plan()])[0]["number"] == 3


def test_what_cannot_be_read_is_not_taken_for_none(store: release.Store) -> None:
    store.keep(made(), [plan()])
    (store.folder / "good").write_text("x", "utf-8")
    with pytest.raises(Unmet, match="expected a number in"):
        store.good()
    (store.folder / "1/release.json").write_text("{", "utf-8")
    with pytest.raises(Unmet, match="none of this form"):
        store.releases()
    (store.folder / "1/plan.json").unlink()
    with pytest.raises(Unmet, match="the plans of release 1"):
        store.plans(1)


def test_the_release_that_runs_is_the_one_whose_files_were_started(store: release.Store) -> None:
    for mark in ("1", "2"):
        store.keep(made(mark), [plan()])
    known = store.releases()
    assert release.running_of(known, [seen("1")]) == 1
    assert release.running_of(known, [seen("2")]) == 2
    # A key that changed is no other release; another unit is none.
    assert (
        release.running_of(known, [seen("1", started={**seen("1")["started"], "/etc/glm/serve-0.secret.env": "x"})])
        == 1
    )
    assert release.running_of(known, [seen("3")]) is None
    assert release.running_of(known, [seen("1", started=None)]) is None
    assert release.running_of(known, []) is None


def test_each_replica_counts(store: release.Store) -> None:
    plans = replicas(2)
    both = [
        {**RUNS, "replica": one["replica"], "started": {f"/etc/systemd/system/glm-serve-{one['replica']}.service": "1"}}
        for one in plans
    ]
    observed = [release.observed(each, one) for each, one in zip(both, plans)]
    store.keep({**made(), "observed": observed, "content_sha256": "two"}, plans)
    assert release.running_of(store.releases(), both) == 1
    assert release.running_of(store.releases(), both[:1]) is None


def test_packages_of_an_engine_without_a_container_are_kept_by_their_fingerprint() -> None:
    one = venv()
    marker = f"{one['runtime']['path']}/.glm.json"
    assert release.observed({**RUNS, "started": {marker: "m", UNIT: "1"}}, one)["package"] == "m"
    assert release.observed(seen(), plan())["package"] is None
    assert release.observed({}, plan())["files"] == {}


KEY = "0123456789abcdef" * 4


def test_the_module_keeps_no_secret(run_module: Callable[..., Any], tmp_path: Path) -> None:
    secrets = tmp_path / "serve-0.secret.env"
    secrets.write_text(f"VLLM_API_KEY={KEY}\n", "utf-8")
    folder = tmp_path / "releases"
    given = {"plans": [plan()], "release": made(), "secret_files": [str(secrets)], "folder": str(folder)}
    leaking = copy.deepcopy(plan())
    leaking["env"]["MINE"] = KEY
    refused = run_module(host_release.main, **{**given, "plans": [leaking]})
    assert (
        refused["failed"] and "no secret in what is kept of a release" in refused["msg"] and KEY not in refused["msg"]
    )
    assert not folder.exists()
    assert run_module(host_release.main, **given)["number"] == 1
    assert all(KEY not in path.read_text("utf-8") for path in folder.rglob("*.json"))


def test_the_module_reads_keeps_nothing_in_check_mode_and_says_a_full_disk(
    run_module: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    given = {"plans": [plan()], "release": made(), "folder": str(tmp_path / "releases")}
    assert run_module(host_release.main, check=True, **given)["number"] is None and not list(tmp_path.iterdir())
    # What was not verified, or failed: the action gives no release.
    assert run_module(host_release.main, folder=given["folder"])["number"] is None and not list(tmp_path.iterdir())
    assert run_module(host_release.main, **given)["changed"]
    again = run_module(host_release.main, **given)
    assert (again["changed"], again["good"]) == (False, 1)
    read = run_module(host_release.main, state="read", number=1, folder=given["folder"])
    assert (read["good"], read["plans"], [one["number"] for one in read["releases"]]) == (1, [plan()], [1])

    def full(*_args: Any, **_more: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(release.files, "write_json", full)
    failed = run_module(host_release.main, **{**given, "release": made("2")})
    assert failed["failed"] and "No space left on device" in failed["msg"] and failed["phase"] == "release"


def test_a_release_is_taken_up_again_unless_it_serves_the_same_or_is_of_another_schema(
    run_module: Callable[..., Any], store: release.Store
) -> None:
    older, newer = plan(served_model_name="older"), plan(served_model_name="newer")
    given = {"state": "taken", "folder": str(store.folder), "schema": older["schema"]}
    assert run_module(host_release.main, **given)["number"] is None
    store.keep(made("1", plans=[older]), [older])
    store.keep(made("2", plans=[newer]), [newer])

    failed = plan(served_model_name="failed")
    found = run_module(host_release.main, **given, plans=[failed])
    assert (found["number"], found["ansible_facts"], found["changed"]) == (2, {"glm_plans": [newer]}, False)
    same = run_module(host_release.main, **given, plans=[{**newer, "notes": ["a remark"]}])
    assert same["number"] is None and "ansible_facts" not in same

    # Nothing of either is on this machine: what is installed never passed.
    before = run_module(host_release.main, check=True, **given, choice="before")
    assert (before["installed"], before["number"]) == (None, 2) and not (store.folder / "back").exists()
    assert run_module(host_release.main, **given, choice="before", number=1)["ansible_facts"] == {"glm_plans": [older]}
    assert (store.folder / "back").read_text("utf-8") == "1\n"
    assert run_module(host_release.main, **given, choice="before")["number"] == 1
    assert run_module(host_release.main, **given, choice="installed")["number"] is None

    refused = run_module(host_release.main, **{**given, "schema": older["schema"] + 1}, plans=[failed])
    assert refused["failed"] and f"expected plans of schema {older['schema'] + 1}" in refused["msg"]
    assert "go back with glm.fleet 0.2.0" in refused["msg"]


def test_what_is_kept_is_json(store: release.Store) -> None:
    kept, _new = store.keep(made(), [plan()])
    assert json.loads((store.folder / "1/release.json").read_text("utf-8")) == kept
