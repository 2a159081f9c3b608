"""A part of a deploy by its tag: it reaches the hosts, after the checks; a tag that nothing has is named."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from tests.playbooks.test_preflight import run

pytestmark = pytest.mark.one_core
HERE = {
    "ansible_connection": "local", "ansible_become": False, "ansible_python_interpreter": sys.executable,
    "glm_accelerator": "B200", "glm_accelerator_count": 8, "glm_private_address": "10.0.0.5",
}  # fmt: skip


def test_a_tag_of_the_last_play_reaches_its_hosts_and_one_that_nothing_has_is_named(tmp_path: Path) -> None:
    # No role has this tag: of each play only what is always done is seen.
    code, output = run(tmp_path, "deploy.yml", {"gpu-1": HERE}, "--tags", "dor_usage", "--check")
    assert code == 0, output
    serve = output.partition("PLAY [Serve and verify]")[2]
    assert "TASK [glm.fleet.plan : Make | Plan what this host serves]" in serve.partition("PLAY")[0], output
    assert "no task of glm.fleet has the tag dor_usage" in output and "Did you mean door_usage?" in output


def test_a_part_is_checked_as_the_whole_is(tmp_path: Path) -> None:
    code, output = run(tmp_path, "deploy.yml", {"gpu-1": HERE}, "--tags", "door", "--check", "-e", "glm_prot=1")
    assert code != 0 and "glm_prot" in output and "did you mean glm_port?" in output
    assert "no task of glm.fleet has the tag" not in output
    code, output = run(tmp_path, "deploy.yml", {"gpu-1": HERE}, "--tags", "door", "--check", "-e", "serve_api_key=x")
    assert code != 0 and "found serve_api_key (an extra variable), which none does" in output
    assert "set glm_api_key instead" in output
