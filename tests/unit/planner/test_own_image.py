"""An image of the user's own: tag, digest, mirror, and the release it is based on."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest

from ansible_collections.glm.fleet.plugins.plugin_utils.catalog import load as catalog
from ansible_collections.glm.fleet.plugins.plugin_utils.plan import lockfile, text
from ansible_collections.glm.fleet.plugins.plugin_utils.plan import make as planner
from ansible_collections.glm.fleet.plugins.plugin_utils.plan.choice import Intent, PlanError

DIGEST = "sha256:" + "ab" * 32
MIRROR = "registry.acme.example:5000/mirror/vllm-openai"
INTENT = Intent("GLM-5.1", "B200", 8, engine="vllm", engine_version="0.32.0")


def image(reference: str, lock: lockfile.LockData | None = None, **more: Any) -> dict[str, Any]:
    made = planner.make(dataclasses.replace(INTENT, image=reference, **more), catalog.load(), lock)
    assert made["image"] is not None and made["image"]["reference"] in " ".join(text.report({"a": made}))
    return dict(made["image"])


def test_a_mirror_of_a_published_tag_is_built_for_the_same() -> None:
    found = image(f"{MIRROR}:v0.32.0")
    assert (found["repository"], found["tag"], found["digest"]) == (MIRROR, "v0.32.0", None)
    assert found["reference"] == f"{MIRROR}:v0.32.0"
    assert (found["variant"], found["cuda"], found["min_driver"]) == ("cu130", "13.0", "580.65.06")


def test_a_digest_is_what_runs_whatever_the_tag_and_the_lock_file_say() -> None:
    lock: lockfile.LockData = {**lockfile.empty(), "images": {f"{MIRROR}:mine": {"digest": "sha256:" + "cd" * 32}}}
    assert image(f"{MIRROR}:mine@{DIGEST}", lock)["reference"] == f"{MIRROR}@{DIGEST}"
    bare = image(f"{MIRROR}@{DIGEST}", lock)
    assert (bare["reference"], bare["tag"]) == (f"{MIRROR}@{DIGEST}", "sha256-abababababab")
    assert image(f"{MIRROR}:mine", lock)["digest"] == "sha256:" + "cd" * 32


def test_a_tag_of_ones_own_says_what_it_is_built_for_only_if_the_user_does() -> None:
    found = image("acme/vllm:patched")
    assert (found["variant"], found["cuda"], found["rocm"]) == ("", None, None)
    # The accelerator's own need is known all the same.
    assert found["min_driver"] == "570"
    assert image("acme/vllm:patched", image_variant="cu129")["cuda"] == "12.9"


def test_a_release_without_a_published_image_is_served_from_ones_own() -> None:
    intent = Intent("GLM-5.1", "B200", 8, engine="sglang", engine_version="0.5.23")
    with pytest.raises(PlanError, match=r"no published image of sglang 0\.5\.23 .*or glm_image to an image of it"):
        planner.make(intent, catalog.load())
    made = planner.make(dataclasses.replace(intent, image="acme/sglang:0.5.23"), catalog.load())
    assert made["engine"]["version"] == "0.5.23" and made["image"] is not None and not made["image"]["build"]


def test_an_own_image_is_not_built_on() -> None:
    """GLM-5 with 0.16.0 gets a newer transformers; an own image has what it has, and is probed for it."""
    intent = Intent("GLM-5", "B200", 8, engine="vllm", engine_version="0.16.0")
    published = planner.make(intent, catalog.load())["image"]
    own = planner.make(dataclasses.replace(intent, image="acme/vllm:glm5"), catalog.load())["image"]
    assert published is not None and published["build"] and own is not None and own["build"] is None


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ({"image": "acme/vllm"}, "glm_image: expected repository:tag"),
        ({"image": "acme/vllm:"}, "glm_image: expected repository:tag"),
        ({"image": "acme/vllm@sha256:abc"}, "glm_image: expected repository:tag"),
        ({"image": "acme/vllm:x --privileged"}, "glm_image: expected repository:tag"),
        ({"image": "-v/:/host:x"}, "glm_image: expected repository:tag"),
        ({"image": "Acme/VLLM:x"}, "glm_image: expected repository:tag"),
        ({"image": "acme/vllm:x", "engine_version": None}, "set glm_engine_version to that release"),
        ({"image": "acme/vllm:x", "image_variant": "cu999"}, "variant 'cu999' is none for B200"),
        ({"image": "acme/vllm:x", "image_variant": "rocm"}, "variant 'rocm' is none for B200"),
        ({"image": "acme/vllm:x", "runtime": "venv"}, "glm_runtime is venv"),
        ({"image": f"{MIRROR}:v0.32.0", "driver_version": "550.54.15"}, "the host has driver 550.54.15"),
        (
            {"image": "acme/vllm:patched", "driver_version": "550.54.15"},
            "the host has driver 550.54.15, B200 needs 570 or newer. Next: upgrade the driver to 570 or newer",
        ),
    ],
)
def test_what_cannot_be_is_refused(more: dict[str, Any], message: str) -> None:
    with pytest.raises(PlanError, match=message.replace("(", r"\(")):
        planner.make(dataclasses.replace(INTENT, **more), catalog.load())
