"""engine_image_build: what pip's report becomes, and what derived images are called."""

from __future__ import annotations

import json

import pytest

from ansible_collections.glm.fleet.plugins.module_utils.finding import Refusal
from ansible_collections.glm.fleet.plugins.modules import engine_image_build as build
from ansible_collections.glm.fleet.plugins.plugin_utils.plan import image as plan_image


def report(*downloads: dict[str, object]) -> str:
    metadata = {"name": "Huggingface_Hub", "version": "1.2.0"}
    return json.dumps({"version": "1", "install": [{"metadata": metadata, "download_info": d} for d in downloads]})


@pytest.mark.parametrize("archive", [{"hashes": {"sha256": "ab" * 32}}, {"hash": "sha256=" + "ab" * 32}])
def test_a_report_becomes_exact_requirements_with_hashes(archive: dict[str, object]) -> None:
    """``hash`` is what pip below 23 writes."""
    found = build.requirements_of(report({"url": "https://example.com/x.whl", "archive_info": archive}))
    assert found == [f"huggingface_hub==1.2.0 --hash=sha256:{'ab' * 32}"]


def test_a_package_without_a_hash_is_refused_by_name() -> None:
    with pytest.raises(Refusal, match=r"expected a sha256 for Huggingface_Hub 1\.2\.0 \(git\+https://x\)"):
        build.requirements_of(report({"url": "git+https://x", "vcs_info": {"vcs": "git"}}))


def test_another_list_or_base_gives_another_name() -> None:
    base, digest = "lmsysorg/sglang:v0.5.9", "sha256:" + "1" * 64
    names = {
        plan_image.derived_name("", base, digest, {"x86_64": ["a==1"]}),
        plan_image.derived_name("", base, digest, {"x86_64": ["a==2"]}),
        plan_image.derived_name("", base, "sha256:" + "2" * 64, {"x86_64": ["a==1"]}),
    }
    assert len(names) == 3
    assert all(name.startswith("glm-fleet/sglang:v0.5.9-") for name in names)
    pushed = plan_image.derived_name("registry.example.com:5000/team/", base, digest, {"x86_64": ["a==1"]})
    assert pushed.startswith("registry.example.com:5000/team/glm-fleet/sglang:v0.5.9-")
    assert pushed.rpartition("/")[2] in {name.rpartition("/")[2] for name in names}
