"""One record, one wording, and text of others that no terminal obeys."""

from __future__ import annotations

import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ansible_collections.glm.fleet.plugins.module_utils import finding

HOSTILE = [
    ("\x1b[31mred\x1b[0m", "red"),
    ("\x1b]0;title\x07after", "after"),
    ("\x1b]8;;https://evil.example\x1b\\link\x1b]8;;\x1b\\", "link"),
    ("\x1b]52;c;cm0gLXJmIC8=\x07", ""),
    ("\x1bPq#0;2;0;0;0\x1b\\sixel", "sixel"),
    ("\x1b(0lqk\x1b(B", "lqk"),
    ("\x9b2J\x9d0;title\x9cafter", "after"),
    ("\x1b]0;never ends", "0;never ends"),
    ("\x1b\x1b[31m[31m", r"\x1b[31m"),
    ("ok\rfailed", r"ok\nfailed"),
    ("ok\x08\x08no", r"ok\x08\x08no"),
    ("a\x00b\x07c\x7f\x85d", r"a\x00b\x07c\x7f\nd"),
    ("user\u202egnp.exe", r"user\u202egnp.exe"),
    ("\u2066a\u2069\u200bb\ufeff\u2028c", r"\u2066a\u2069\u200bb\ufeff\nc"),
    ("\U000e0001tag", r"\U000e0001tag"),
    ("bad \udcff byte", r"bad \udcff byte"),
    ("a\tb\u00a0c", "a b c"),
    ("naïve 智谱 ✓", "naïve 智谱 ✓"),
]


@pytest.mark.parametrize(("foreign", "shown"), HOSTILE)
def test_foreign_text_is_shown_and_not_obeyed(foreign: str, shown: str) -> None:
    assert finding.printable(foreign) == shown


def test_newlines_are_kept_only_where_asked() -> None:
    assert finding.printable("a\r\nb\rc\n", newlines=True) == "a\nb\nc\n"
    assert finding.printable("a\r\nb") == r"a\nb"


def test_a_text_has_its_longest_length() -> None:
    assert finding.printable("x" * 50, limit=10) == "x" * 9 + "…"
    assert finding.printable("\x00" * 50, limit=10) == r"\x00\x00\…"
    assert finding.printable("x" * 10, limit=10) == "x" * 10


@given(st.text(st.characters(), max_size=60), st.booleans())
def test_nothing_that_is_shown_moves_or_reorders_text(text: str, newlines: bool) -> None:
    shown = finding.printable(text, newlines=newlines)
    left = [char for char in shown if unicodedata.category(char) in ("Cc", "Cf", "Cs", "Zl", "Zp")]
    assert set(left) <= ({"\n"} if newlines else set())
    assert finding.printable(shown, newlines=newlines) == shown
    shown.encode("utf-8")


@pytest.mark.parametrize(("foreign", "_shown"), HOSTILE)
def test_a_finding_holds_no_text_that_a_terminal_obeys(foreign: str, _shown: str) -> None:
    made = finding.failed(foreign, foreign, foreign, foreign, check=foreign, evidence=[foreign])
    texts = [made["phase"], made["check"], made["expected"], made["found"], made["next"], *made["evidence"]]
    assert all(text.isprintable() for text in [*texts, finding.describe([made], foreign)])


def test_an_error_names_host_phase_expected_found_and_next() -> None:
    one = finding.failed("driver", "driver 570 or newer", "535.1", "upgrade it")
    two = finding.failed("verify", "a text.", "HTTP 500.", "read the journal.", check="chat")
    assert finding.describe([one, two], "gpu-1") == (
        "gpu-1, driver: expected driver 570 or newer, found 535.1. Next: upgrade it. "
        "gpu-1, verify, chat: expected a text, found HTTP 500. Next: read the journal."
    )
    assert finding.describe([], "gpu-1") == ""


def test_what_is_not_proven_fails_nobody_and_is_not_counted_as_made() -> None:
    good = finding.judged("verify", "models", True, "a model", "GLM-5", "no need", seconds=0.123)
    unknown = finding.not_proven("verify", "closed", "a closed port", "it cannot be resolved")
    bad = finding.failed("verify", "a text", "none", "read the journal", check="chat")
    assert finding.verdict_ok([good, unknown])
    assert not finding.verdict_ok([good, unknown, bad])
    assert finding.against([good, unknown, bad]) == [bad]
    assert finding.tally([good, unknown, bad]) == (1, 2)
    assert good["seconds"] == 0.12 and good["next"] == "" and "seconds" not in bad


def test_a_summary_counts_the_checks_and_lists_those_that_failed() -> None:
    good = finding.judged("verify", "models", True, "a model", "GLM-5")
    bad = finding.failed(
        "verify", "a text", "none", "read the journal", check="chat", evidence=["Traceback", "KeyError"]
    )
    assert finding.summary([good, bad], "gpu-1, verify") == (
        "gpu-1, verify: 1 of 2 checks failed\n  verify, chat: expected a text, found none. Next: read the journal."
    )
    assert finding.in_full(bad, "gpu-1", "Its log") == (
        "gpu-1: expected a text, found none. Next: read the journal.\n  Its log:\n    Traceback\n    KeyError"
    )
    assert finding.in_full(good, "gpu-1", "Its log") == "gpu-1: expected a model, found GLM-5."


def test_all_texts_of_a_value_are_made_printable() -> None:
    value = {"a\x1b[31m": ["x\ny", ("\u202e", 1.5, None, True)], "b": {"c": "\x07"}}
    assert finding.printable_in(value) == {"a": ["x\ny", [r"\u202e", 1.5, None, True]], "b": {"c": r"\x07"}}
