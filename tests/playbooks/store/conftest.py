"""A store and a key pair for it."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from botocore.retries.standard import ExponentialBackoff

from tests.playbooks.store import s3


@pytest.fixture(autouse=True)
def key_pair(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing of whoever runs the tests."""
    for name in ("AWS_PROFILE", "AWS_SESSION_TOKEN", "AWS_ENDPOINT_URL", "AWS_ENDPOINT_URL_S3", "AWS_REGION"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_CONFIG_FILE", "/dev/null")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", "/dev/null")
    # boto3 waits up to 20 s before it tries again.
    monkeypatch.setattr(ExponentialBackoff, "delay_amount", lambda *_args: 0.0)
    for name, value in s3.KEY_PAIR.items():
        monkeypatch.setenv(name, value)


@pytest.fixture
def store() -> Iterator[s3.Store]:
    with s3.serving() as running:
        yield running
