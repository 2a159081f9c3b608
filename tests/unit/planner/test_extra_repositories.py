"""Draft models, adapters and tokenizers beside the model: planned as folders of locked commits."""

from __future__ import annotations

import dataclasses
import json
from typing import Any

import pytest

from ansible_collections.glm.fleet.plugins.plugin_utils.catalog import load as catalog
from ansible_collections.glm.fleet.plugins.plugin_utils.plan import lockfile, repositories, text
from ansible_collections.glm.fleet.plugins.plugin_utils.plan import make as planner
from ansible_collections.glm.fleet.plugins.plugin_utils.plan.choice import Intent, PlanError
from ansible_collections.glm.fleet.plugins.plugin_utils.plan.schema import Plan
from ansible_collections.glm.fleet.plugins.plugin_utils.serving import replica

KNOWN = catalog.load()
COMMIT = "0123456789abcdef0123456789abcdef01234567"
OTHER = "f" * 40
HUB = "/root/.cache/huggingface/hub"
FOLDER = f"{HUB}/models--acme--draft/snapshots/{COMMIT}"
INTENT = Intent("GLM-5.2", "H200", 8, engine="vllm", extra_repositories=["acme/draft"])
DRAFTS = {"speculative-config": {"method": "dspark", "model": "acme/draft", "num_speculative_tokens": 7}}


def lock(**commits: str) -> lockfile.LockData:
    """A lock file with these repositories of acme at main."""
    models: dict[str, lockfile.ModelEntry] = {
        f"acme/{name}@main": {"commit": commit, "bytes": 1_500_000_000} for name, commit in commits.items()
    }
    return {**lockfile.empty(), "models": models}


def plan(known: lockfile.LockData | None = None, **more: Any) -> Plan:
    return planner.make(dataclasses.replace(INTENT, **more), KNOWN, known)


def test_an_argument_gets_the_folder_of_the_locked_commit() -> None:
    made = plan(lock(draft=COMMIT), engine_args=DRAFTS)
    assert FOLDER in made["command"] and not any("acme/draft" in word for word in made["command"])
    assert made["extra_repositories"] == [
        {
            "repository": "acme/draft", "requested_revision": "main", "revision": COMMIT, "path": FOLDER,
            "bytes": 1_500_000_000,
        }
    ]  # fmt: skip
    assert "The arithmetic counts nothing of acme/draft (1.5 GB) in the memory of the GPUs." in made["notes"]
    assert f"acme/draft ({COMMIT}), 1.5 GB" in " ".join(" ".join(text.report({"h": made})).split())


def test_what_is_not_locked_is_planned_and_not_served() -> None:
    made = plan(engine_args=DRAFTS)
    assert made["extra_repositories"][0]["revision"] is None
    assert "acme/draft (main, not locked to a commit yet)" in " ".join(" ".join(text.report({"h": made})).split())
    assert "the commit of model acme/draft" in replica.unlocked(made)
    assert "the commit of model acme/draft" not in replica.unlocked(plan(lock(draft=COMMIT), engine_args=DRAFTS))


def test_bare_metal_has_the_hosts_folder() -> None:
    made = plan(lock(draft=COMMIT), engine_args=DRAFTS, runtime="venv", data_dir="/data/glm")
    assert made["extra_repositories"][0]["path"].startswith("/data/glm/huggingface/hub/models--acme--draft/snapshots/")
    assert made["extra_repositories"][0]["path"] in made["command"]


def test_a_unit_needs_their_folders_and_restarts_when_files_of_them_were_replaced() -> None:
    models = lock(draft=COMMIT)
    models["models"]["zai-org/GLM-5.2-FP8@main"] = {"commit": OTHER}
    made = replica.replica(plan(models, engine_args=DRAFTS))
    host = "/var/lib/glm/huggingface"
    assert made["assert_paths"] == [
        f"{host}/hub/models--zai-org--GLM-5.2-FP8/snapshots/{OTHER}",
        f"{host}/hub/models--acme--draft/snapshots/{COMMIT}",
    ]
    assert made["serving_unit"]["weights"] == [
        f"{host}/glm-verified/zai-org--GLM-5.2-FP8@{OTHER}.json", f"{host}/glm-verified/acme--draft@{COMMIT}.json",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("acme/draft", FOLDER),
        ("acme/draft/legal", f"{FOLDER}/legal"),
        ("legal=acme/draft", f"legal={FOLDER}"),
        ("legal=acme/draft/legal", f"legal={FOLDER}/legal"),
        (["a=acme/draft", "b=acme/other"], [f"a={FOLDER}", "b=acme/other"]),
        ({"name": "a", "path": "acme/draft"}, {"name": "a", "path": FOLDER}),
        ('{"name": "a", "path": "acme/draft"}', json.dumps({"name": "a", "path": FOLDER})),
        ('{"x": 1,   "y": "acme/others"}', '{"x": 1,   "y": "acme/others"}'),
        ("{acme/draft", "{acme/draft"),
        ("acme/drafts", "acme/drafts"),
        ("my-acme/draft", "my-acme/draft"),
        (7, 7),
        (True, True),
        (None, None),
    ],
)
def test_names_are_found_wherever_arguments_have_them(value: Any, expected: Any) -> None:
    found = repositories.extra(INTENT, lock(draft=COMMIT))
    assert repositories.placed(value, found) == expected


def test_adapters_of_one_repository_are_named_by_their_folders() -> None:
    made = plan(
        lock(loras=COMMIT),
        extra_repositories=["acme/loras"],
        engine_args={"enable-lora": True, "lora-modules": ["legal=acme/loras/legal", "tax=acme/loras/tax"]},
    )
    folder = f"{HUB}/models--acme--loras/snapshots/{COMMIT}"
    assert f"legal={folder}/legal" in made["command"] and f"tax={folder}/tax" in made["command"]


def test_one_that_no_argument_names_is_said() -> None:
    assert "acme/draft is fetched, and nothing in glm_engine_args names it." in plan()["notes"]


def test_a_revision_of_ones_own() -> None:
    found = repositories.extra(dataclasses.replace(INTENT, extra_repositories=["acme/draft@v1.2"]), lockfile.empty())
    assert [(one["requested_revision"], one["path"]) for one in found] == [
        ("v1.2", f"{HUB}/models--acme--draft/snapshots/v1.2")
    ]


@pytest.mark.parametrize(
    ("entries", "message"),
    [
        ("acme/draft", "expected a list, found 'acme/draft'"),
        (["draft"], "expected owner/name or owner/name@revision, found 'draft'"),
        (["acme/draft@"], "found 'acme/draft@'"),
        (["acme/draft@../x"], r"found 'acme/draft@\.\./x'"),
        (["acme/draft@-x"], "found 'acme/draft@-x'"),
        (["/srv/draft"], "found '/srv/draft'"),
        ([{"repository": "acme/draft"}], "expected owner/name"),
        ([None], "found None"),
        (["acme/draft", "acme/draft@v2"], "names acme/draft twice"),
        (["zai-org/GLM-5.2-FP8"], "which has the weights of the model"),
    ],
)
def test_what_names_no_other_repository_is_refused(entries: Any, message: str) -> None:
    with pytest.raises(PlanError, match=f"glm_extra_repositories.*{message}"):
        plan(extra_repositories=entries)


def test_a_plan_of_an_earlier_version_names_none() -> None:
    made = plan(extra_repositories=[])
    earlier: Any = {key: value for key, value in made.items() if key != "extra_repositories"}
    assert repositories.of_plan(earlier) == [("zai-org/GLM-5.2-FP8", "main", None)]
