"""Every command of the sources: what we render, and that every difference is explained and every explanation true."""

from __future__ import annotations

import re
import shlex
from collections import Counter
from pathlib import Path

import pytest
import yaml

from tools import source_claims, source_data, sources_page
from tools import source_commands as sources_of

ROOT = Path(__file__).resolve().parents[3]
SOURCES = source_data.sources()
ENTRIES = [entry for source in SOURCES for entry in source.entries]
COMPARED = [entry for entry in ENTRIES if entry.kind in ("serve", "container", "install", "pull", "advice")]
CONFIGURATIONS = [entry for entry in ENTRIES if entry.kind == "configuration"]
OTHERS = [entry for entry in ENTRIES if entry.kind == "other"]
CLAIMS = [claim for source in SOURCES for claim in source.claims]
WRONG = [claim.id for claim in CLAIMS if claim.verdict == "wrong"]


def by_id(item: object) -> str:
    return str(getattr(item, "id", item))


def test_all_five_sources_are_there() -> None:
    assert [source.id for source in SOURCES] == ["000", "001", "002", "003", "004"]
    ids = [entry.id for entry in ENTRIES] + [claim.id for claim in CLAIMS]
    assert len(ids) == len(set(ids))
    assert all(name.startswith(source.id) for source in SOURCES for name in map(by_id, source.entries))


@pytest.mark.parametrize("entry", COMPARED, ids=by_id)
def test_every_difference_is_explained(entry: source_data.Entry) -> None:
    made = sources_of.plan(entry.intent)
    computed = {item.what: f"{item.source} -> {item.ours}" for item in sources_of.differences(entry, made)}
    reasons = sources_of.documented(entry, made)
    assert {what: text for what, text in computed.items() if what not in reasons} == {}, "differs without a reason"
    assert set(sources_of.own_reasons(entry)) - set(computed) == set(), "a reason without a difference"


@pytest.mark.parametrize("entry", COMPARED, ids=by_id)
def test_every_reason_holds(entry: source_data.Entry) -> None:
    made = sources_of.plan(entry.intent)
    reasons = sources_of.documented(entry, made)
    doubts = {
        item.what: (reasons[item.what].reason, doubt)
        for item in sources_of.differences(entry, made)
        if (doubt := sources_of.doubt(entry, made, item, reasons[item.what], WRONG))
    }
    assert doubts == {}


def test_every_shared_reason_is_used() -> None:
    used = set()
    for entry in COMPARED:
        made = sources_of.plan(entry.intent)
        computed = {item.what for item in sources_of.differences(entry, made)} - set(sources_of.own_reasons(entry))
        used |= {(group.id, what) for group in sources_of.applicable(entry, made) for what in computed}
    stated = {(group.id, what) for group in source_data.groups() for item in group.differences for what in item.what}
    assert stated - used == set()


@pytest.mark.parametrize("entry", [entry for entry in ENTRIES if entry.kind == "advice"], ids=by_id)
def test_advice_can_be_followed(entry: source_data.Entry) -> None:
    made = sources_of.plan(entry.intent)
    table = sources_of.table_of(made)
    advised, _spelled, unknown = sources_of.engine_items(table, shlex.split(entry.command))
    rendered, _spelled, _unknown = sources_of.engine_items(table, sources_of.our_line(made).arguments)
    assert unknown == []
    assert advised.items() <= rendered.items()


@pytest.mark.parametrize("entry", CONFIGURATIONS, ids=by_id)
def test_configurations(entry: source_data.Entry) -> None:
    refusal = sources_of.refusal(entry.intent)
    assert (entry.expect == "refused") == bool(refusal), refusal
    assert bool(entry.refusal) == bool(refusal)
    assert entry.refusal in refusal


LITERAL = [(entry, item) for entry in ENTRIES for item in entry.literal]


@pytest.mark.parametrize(("entry", "item"), LITERAL, ids=by_id)
def test_taken_to_the_letter_it_is_refused(entry: source_data.Entry, item: source_data.ToTheLetter) -> None:
    assert item.refusal in sources_of.refusal(sources_of.changed(entry.intent, item.change))


@pytest.mark.parametrize("entry", OTHERS, ids=by_id)
def test_what_does_not_serve_has_a_place(entry: source_data.Entry) -> None:
    assert entry.status in ("done", "not-yet")
    exists = (ROOT / entry.place).exists()
    assert exists == (entry.status == "done"), f"{entry.place}: is it {entry.status}?"


@pytest.mark.parametrize("claim", CLAIMS, ids=by_id)
def test_claims(claim: source_data.Claim) -> None:
    computed = source_claims.compute(claim.figure)
    assert source_claims.verdict(claim.claimed, computed) == claim.verdict, computed


@pytest.mark.parametrize("entry", [*COMPARED, *CONFIGURATIONS], ids=by_id)
def test_golden(entry: source_data.Entry) -> None:
    kept = sources_of.golden_file(entry).read_text(encoding="utf-8")
    assert kept == sources_of.golden(entry), "review the change, then: make sources"


def test_page_and_golden_files_are_what_would_be_written(capsys: pytest.CaptureFixture[str]) -> None:
    assert sources_page.main(["--check"]) == 0, capsys.readouterr().err


def test_links_of_the_page_lead_somewhere() -> None:
    text = sources_page.PAGE.read_text(encoding="utf-8")
    anchors = Counter(sources_page._anchor(line.lstrip("# ")) for line in text.splitlines() if line.startswith("#"))
    targets = re.findall(r"\]\(([^)]+)\)", text)
    assert len(targets) > 50
    assert [target for target in targets if target.startswith("#") and anchors[target[1:]] != 1] == []
    files = [target for target in targets if not target.startswith("#")]
    assert [target for target in files if not (sources_page.PAGE.parent / target).is_file()] == []


def test_the_questions_use_the_role_s_variables() -> None:
    spec = yaml.safe_load((ROOT / "roles" / "plan" / "meta" / "argument_specs.yml").read_text(encoding="utf-8"))
    known = set(spec["argument_specs"]["main"]["options"])
    asked = {key for entry in ENTRIES for key in entry.intent}
    assert {sources_of.VARIABLES[key] for key in asked} <= known
