"""Scores of the mini-eval: what a new one is compared with, which are kept, and what is said when one is worse."""

from __future__ import annotations

import json
import multiprocessing
from pathlib import Path
from typing import Any

import pytest

from ansible_collections.glm.fleet.plugins.module_utils.finding import Finding, Unmet
from ansible_collections.glm.fleet.plugins.plugin_utils.serving import baseline
from tests.unit.serve.plans import plan

SCORE_78 = "78 of 80 right (sums 48 of 50, tool calls 30 of 30)"
QUESTIONS = {"eval": {"sum_ask": "What is {sum}?", "sums": [{"sum": "1 + 1", "answer": "2"}], "tools": []}}


def settled(path: Path, right: int, version: str = "0.32.0", margin: float = 0.05, **more: Any) -> Finding:
    made = plan()
    made["engine"]["version"] = version
    parts = {"sums": [max(0, right - 30), 50], "tool calls": [min(right, 30), 30]}
    counted = {"asked": 80, "right": right, "parts": parts, "seconds": 2.5, "unanswered": 0, "wrong": [], **more}
    return baseline.settled(path, made, baseline.made(made, more.get("questions", QUESTIONS), counted), counted, margin)


def kept(path: Path) -> list[dict[str, Any]]:
    [scores] = json.loads(path.read_text(encoding="utf-8"))["scores"].values()
    return list(scores)


def test_the_first_score_is_the_baseline(tmp_path: Path) -> None:
    path = tmp_path / "state" / "eval.json"
    first = settled(path, 78)
    assert (first["outcome"], first["found"], first["seconds"]) == ("passed", SCORE_78, 2.5)
    assert [one["right"] for one in kept(path)] == [78]


@pytest.mark.parametrize(("right", "outcome"), [(80, "passed"), (74, "passed"), (73, "failed"), (0, "failed")])
def test_a_later_version_may_lose_the_margin_and_no_more(tmp_path: Path, right: int, outcome: str) -> None:
    path = tmp_path / "eval.json"
    settled(path, 78)
    later = settled(path, right, version="0.33.0")
    assert later["outcome"] == outcome
    assert "at least 74 right answers of 80, the 78 of 0.32.0" in later["expected"]
    assert [one["engine_version"] for one in kept(path)] == ["0.32.0", "0.33.0"][: 2 if outcome == "passed" else 1]


def test_small_losses_do_not_add_up(tmp_path: Path) -> None:
    path = tmp_path / "eval.json"
    outcomes = [settled(path, right, version=f"0.{30 + step}.0")["outcome"] for step, right in enumerate((80, 77, 74))]
    assert outcomes == ["passed", "passed", "failed"]


def test_of_one_version_the_better_score_stays(tmp_path: Path) -> None:
    path = tmp_path / "eval.json"
    for right in (77, 79, 78):
        settled(path, right)
    assert [one["right"] for one in kept(path)] == [79]


def test_other_questions_are_not_compared(tmp_path: Path) -> None:
    path = tmp_path / "eval.json"
    settled(path, 80)
    other = settled(path, 62, questions={"eval": {**QUESTIONS["eval"], "sums": []}})
    assert other["outcome"] == "passed"
    assert other["expected"] == "at least 40 right answers of 80, and half of each kind"


def test_half_must_be_right_whatever_was_before(tmp_path: Path) -> None:
    bad = settled(tmp_path / "eval.json", 39, unanswered=2, wrong=["'What is 1 + 1?': wrong answer '7', not 2"])
    assert bad["outcome"] == "failed" and not (tmp_path / "eval.json").exists()
    counted = "39 of 80 right (sums 9 of 50, tool calls 30 of 30), 2 without an answer"
    assert bad["found"] == f"{counted}; 'What is 1 + 1?': wrong answer '7', not 2"
    assert "run it once more" in bad["next"]


def test_no_tool_call_is_not_made_good_by_sums(tmp_path: Path) -> None:
    deaf = settled(tmp_path / "eval.json", 50, parts={"sums": [50, 50], "tool calls": [0, 30]})
    assert deaf["outcome"] == "failed" and "tool calls 0 of 30" in deaf["found"]
    assert not (tmp_path / "eval.json").exists()


def test_a_score_with_an_answer_that_never_came_is_none(tmp_path: Path) -> None:
    assert settled(tmp_path / "eval.json", 79, unanswered=1)["outcome"] == "failed"
    assert not (tmp_path / "eval.json").exists()


@pytest.mark.parametrize(
    "content", ["", "[]", '{"schema": 1}', "no JSON", '{"scores": []}', '{"scores": {"a": [{"right": 80}]}}']
)
def test_a_file_of_another_form_is_neither_used_nor_replaced(tmp_path: Path, content: str) -> None:
    path = tmp_path / "eval.json"
    path.write_text(content, encoding="utf-8")
    with pytest.raises(Unmet, match="a file of another form"):
        settled(path, 80)
    assert path.read_text(encoding="utf-8") == content


def test_a_folder_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "state").write_text("a file", encoding="utf-8")
    with pytest.raises(Unmet, match=r"to keep the score in .*eval\.json"):
        settled(tmp_path / "state" / "eval.json", 80)


def test_hosts_of_one_run_do_not_lose_each_other_s_scores(tmp_path: Path) -> None:
    path = tmp_path / "eval.json"
    context = multiprocessing.get_context("fork")
    hosts = [context.Process(target=settled, args=(path, 80, f"0.{number}.0")) for number in range(8)]
    for host in hosts:
        host.start()
    for host in hosts:
        host.join()
    assert len(kept(path)) == 8
