"""The account that launching playbooks run on."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import requests

from simulator.lambda_cloud.config import Config
from simulator.lambda_cloud.server import running
from tests.playbooks.fleet import KIND, PUBLIC_KEY, Fleet


@pytest.fixture(autouse=True)
def own_ledger(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What a test launches is no entry in the ledgers of whoever runs it."""
    monkeypatch.setenv("GLM_LEDGER_DIR", str(tmp_path / "ledger"))


@pytest.fixture
def fleet(tmp_path: Path) -> Iterator[Fleet]:
    with running(Config(port=0)) as (_url, cloud):
        cloud.control("PUT", "/capacity", {KIND: {"us-east-1": None, "us-west-1": None}})
        requests.post(
            f"{cloud.api_url}/ssh-keys",
            headers={"Authorization": f"Bearer {cloud.api_key}"},
            json={"name": "deploy", "public_key": PUBLIC_KEY},
            timeout=60,
        ).raise_for_status()
        made = Fleet(cloud, tmp_path)
        try:
            yield made
        finally:
            made.end_guards()
