"""What stage.yml says of places whose price the catalogue knows, and which repository it takes."""

from __future__ import annotations

import pytest

from ansible_collections.glm.fleet.plugins.action import weights_stage
from ansible_collections.glm.fleet.plugins.plugin_utils.catalog.load import load
from ansible_collections.glm.fleet.plugins.plugin_utils.plan.choice import Intent, PlanError, weights_repository


@pytest.mark.parametrize(
    ("host", "month"),
    [
        ("files.us-east-2.lambda.ai", 140.85),
        ("s3.eu-central-1.amazonaws.com", 16.2),
        ("s3.amazonaws.com", 16.2),
        ("files.us-east-2.lambda.ai.example.com", None),
        ("minio.example.com", None),
        ("", None),
    ],
)
def test_a_price_is_said_for_stores_that_the_catalogue_knows(host: str, month: float | None) -> None:
    assert weights_stage._usd_per_month(756_200_000_000, weights_stage._price(host, load())) == month


def test_the_repository_is_the_plans_on_whatever_hardware() -> None:
    known = load()
    assert weights_repository(Intent("GLM-5.1", "", 0), known) == "zai-org/GLM-5.1-FP8"
    assert weights_repository(Intent("GLM-5.1", "", 0, precision="nvfp4"), known) == "nvidia/GLM-5.1-NVFP4"
    assert weights_repository(Intent("GLM-5.1", "", 0, repository="acme/x"), known) == "acme/x"
    for intent, words in (
        (Intent("GLM-51", "", 0), "unknown model"),
        (Intent("GLM-5.1", "", 0, precision="fp9"), "unknown precision"),
        (Intent("GLM-5.1", "", 0, precision="int4"), "no official repository"),
        (Intent("GLM-5.1", "", 0, repository="../x"), "not the name of a repository"),
    ):
        with pytest.raises(PlanError, match=words):
            weights_repository(intent, known)
