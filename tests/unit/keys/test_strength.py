"""A key of less than 128 bits is refused, and a random one of 128 is not."""

from __future__ import annotations

import base64
import random

import pytest

from ansible_collections.glm.fleet.plugins.module_utils.finding import Refusal
from ansible_collections.glm.fleet.plugins.plugin_utils.keys import strength

WEAK = {
    "empty": "",
    "a word": "changeme",
    "21 characters of base64url": "aB3-xY9_qL2mN8pR5tV7w",
    "31 hexadecimal digits": "9f86d081884c7d659a2feaa0c55ad01",
    "digits only": "49302817465930281746593028174659302817",
    "one letter": "a" * 64,
    "a word again and again": "changeme" * 8,
    "the alphabet": "abcdefghijklmnopqrstuvwxyz0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZ",
    "downwards": "zyxwvutsrqponmlkjihgfedcba9876543210",
    "a run in the middle": "aB3-xY9_qL2maaaaaaaaaaaaaaaaa",
    "seven characters": "aB3-xY9" "9Yx-3Ba" "a3BxY-9" "Y9xaB-3",
}  # fmt: skip


@pytest.mark.parametrize("what", WEAK)
def test_a_weak_key_is_refused_by_name_and_not_quoted(what: str) -> None:
    with pytest.raises(Refusal, match="a key needs 128") as refused:
        strength.require(WEAK[what], "the key in glm_api_key", "set another")
    assert not WEAK[what] or WEAK[what] not in str(refused.value)


# The same keys in every run: of 100,000 short ones about one has no letter of one case, and counts for less.
DRAWN = random.Random(17)


@pytest.mark.parametrize(
    "make",
    [
        lambda: base64.urlsafe_b64encode(DRAWN.randbytes(17)).rstrip(b"=").decode(),
        lambda: DRAWN.randbytes(17).hex(),
        strength.new,
    ],
    ids=["17 bytes as base64url", "17 bytes as hexadecimal digits", "made here"],
)
def test_random_keys_pass(make: object) -> None:
    assert callable(make)
    assert [key for key in (make() for _ in range(2000)) if strength.bits(key) < strength.LEAST_BITS] == []


def test_the_least_that_passes() -> None:
    assert strength.bits("aB3-xY9_qL2mN8pR5tV7wZ") >= strength.LEAST_BITS
    assert strength.bits("9f86d081884c7d659a2feaa0c55ad015") >= strength.LEAST_BITS
