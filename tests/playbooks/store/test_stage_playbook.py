"""stage.yml as its users run it, from the hub simulator to a kept S3 server."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from ansible_collections.glm.fleet.plugins.plugin_utils.store import staged
from ansible_collections.glm.fleet.plugins.plugin_utils.store.bucket import Bucket, place
from simulator.hub import Hub
from tests.playbooks.store import s3

ROOT = Path(__file__).parents[3]
REPO = "acme/Tiny"
DRAFT = "acme/draft"


@pytest.fixture
def inventory(tmp_path: Path) -> Path:
    path, own = tmp_path / "hosts.yml", tmp_path / "own"
    own.mkdir()
    model = {"like": "GLM-4.7-Flash", "precisions": {"bf16": {"repository": REPO, "weights": "bf16"}}}
    (own / "models.yml").write_text(yaml.safe_dump({"models": {"Acme-Tiny": model}}), "utf-8")
    # One names its model by the team's own catalogue.
    by_model = {"glm_repository": "", "glm_model": "Acme-Tiny", "glm_precision": "bf16"}
    hosts = {"a": {}, "b": by_model, "c": {"glm_revision": "other", "glm_extra_repositories": [f"{DRAFT}@v1"]}}
    fleet = {"hosts": hosts, "vars": {"glm_repository": REPO}}
    path.write_text(yaml.safe_dump({"all": {"vars": {"glm_catalog": [str(own)]}}, "glm_fleet": fleet}), "utf-8")
    return path


def test_stage_brings_what_the_hosts_are_to_serve_once_and_locks_it(
    tmp_path: Path, inventory: Path, store: s3.Store
) -> None:
    for folder, content in ((REPO, b"one"), (f"{REPO}@other", b"two"), (f"{DRAFT}@v1", b"six")):
        path = tmp_path / "repos" / folder / "model.safetensors"
        path.parent.mkdir(parents=True)
        path.write_bytes(content * 1000)
    (tmp_path / "repos" / REPO / "optimizer.pt").write_bytes(b"p" * 9000)
    pickles = tmp_path / "repos" / "acme" / "Pickles" / "pytorch_model.bin"
    pickles.parent.mkdir(parents=True)
    pickles.write_bytes(b"p" * 1000)

    def run(*words: str, **variables: str) -> tuple[int, str]:
        given = {"glm_hub_endpoint": hub.url, "glm_store_endpoint": store.url, **variables}
        extra = [part for name, value in given.items() for part in ("-e", f"{name}={value}")]
        program = str(Path(sys.executable).parent / "ansible-playbook")
        command = [program, "stage.yml", "-i", str(inventory), *extra, *words]
        env = {**os.environ, "ANSIBLE_NOCOLOR": "1", "COLUMNS": "400", "HOME": str(tmp_path)}
        done = subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True, check=False)
        return done.returncode, " ".join((done.stdout + done.stderr).split())

    with Hub(tmp_path / "repos") as hub:
        code, output = run("-vvv", glm_weights_origin=f"s3://{s3.BUCKET}/models")
        assert code == 0, output
        assert output.count(f"controller: stage: {REPO}@") == 2, "two commits, whatever the number of hosts"
        assert output.count("1 file, 3.0 kB, 3.0 kB still to be brought") == 3, "and the repository beside them"
        assert output.count("without 1 file of pickles and code (glm_allow_unsafe_weights)") == 1
        assert "what they cost there is not known to the catalogue" in output
        assert not any(secret in output for secret in s3.KEY_PAIR.values())
        locked = yaml.safe_load((tmp_path / "glm.lock.yml").read_text("utf-8"))["models"]
        assert set(locked) == {f"{REPO}@main", f"{REPO}@other", f"{DRAFT}@v1"}
        bucket = Bucket(place(f"s3://{s3.BUCKET}/models", store.url))
        for key, entry in locked.items():
            there = staged.complete(bucket, key.partition("@")[0], entry["commit"], unsafe=False)
            assert there.sha256 == entry["manifest_sha256"]
        hub.requests.clear()
        code, output = run("--check", glm_weights_origin=f"s3://{s3.BUCKET}/models")
        assert code == 0 and "changed=1" not in output and "all there" in output, output
        assert hub.requests == []
        # Before there are hosts, the lock file is where theirs will be.
        (tmp_path / "glm.lock.yml").unlink()
        inventory.write_text("", "utf-8")
        code, output = run(glm_weights_origin=f"s3://{s3.BUCKET}/models", glm_repository=REPO)
        assert code == 0 and "all there" in output, output
        assert set(yaml.safe_load((tmp_path / "glm.lock.yml").read_text("utf-8"))["models"]) == {f"{REPO}@main"}
        wanted = {"glm_weights_origin": f"s3://{s3.BUCKET}/models", "glm_repository": "acme/Pickles"}
        for check in ([], ["--check"]):
            code, output = run(*check, **wanted)
            assert code != 0 and "are pickles, which run code" in output, output
            assert "glm_allow_unsafe_weights=true" in output
        assert not bucket.objects("models/acme/Pickles/")
        code, output = run(**wanted, glm_allow_unsafe_weights="true")
        assert code == 0 and "1 file, 1.0 kB, 1.0 kB still to be brought" in output, output
