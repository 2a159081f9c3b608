"""Which variables of a run are refused, and in which words."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from ansible_collections.glm.fleet.plugins.module_utils.finding import Unmet
from ansible_collections.glm.fleet.plugins.plugin_utils.intent import check, table
from ansible_collections.glm.fleet.plugins.plugin_utils.intent.table import Variable
from ansible_collections.glm.fleet.plugins.plugin_utils.plan import request

ROOT = Path(__file__).parents[3]
TABLE = table.load()
OLD = {
    **TABLE,
    "glm_old_precision": Variable(
        "glm_old_precision", "model", "str", "Old.", replaced_by="glm_precision", removed_in="0.4.0"
    ),
}


def judged(variables: dict[str, Any], reach: check.Reach = "all", release: str = "0.2.0") -> check.Verdict:
    return check.judge(OLD, [check.Place("group all", reach, variables)], release)


def test_all_unknown_names_are_named_at_once_with_the_nearest_and_where_they_are_set() -> None:
    places = [
        check.Place("an extra variable", "all", {"glm_precison": "nvfp4", "glm_model": "GLM-5.1"}),
        check.Place("host a", "hosts", {"glm_modle": "x", "glm_precison": "fp8", "modle": 1}),
        check.Place("group all", "controller", {"glm_zzz": 1}),
    ]
    (error,) = check.judge(TABLE, places, "0.2.0").errors
    assert "glm_modle (host a; did you mean glm_model?)" in error
    assert "glm_precison (an extra variable; did you mean glm_precision?)" in error
    assert "glm_zzz (group all)" in error and "Next: correct or remove them" in error
    assert error.count("glm_precison") == 1


def test_variables_of_roles_that_none_reads_any_more_are_refused_with_what_to_set() -> None:
    places = [
        check.Place("group gpu", "hosts", {"serve_api_key": "secret", "serve_state_dir": "/srv"}),
        check.Place("host a", "hosts", {"serve_api_key": "other", "serve_poll_seconds": 5}),
    ]
    (error,) = check.judge(TABLE, places, "0.2.0", table.moved()).errors
    assert "found serve_api_key (group gpu), serve_state_dir (group gpu), which none does" in error
    assert error.endswith("Next: set glm_api_key, glm_state_dir instead.") and "secret" not in error
    with pytest.raises(Unmet, match=r"found serve_api_key_file, which none does.*set glm_api_key_file instead"):
        request.require_known({"serve_api_key_file": "/k", "serve_plans": []})
    request.require_known({"serve_plans": []})


def test_what_to_set_instead_is_read() -> None:
    roles = "".join(path.read_text("utf-8") for path in (ROOT / "roles").glob("*/defaults/main.yml"))
    for old, new in table.moved().items():
        assert not re.search(rf"\b{old}:", roles), f"{old} is still a variable of a role"
        assert new in TABLE or re.search(rf"^{new}:", roles, re.MULTILINE), new


@pytest.mark.parametrize("name", ["glm_max_hourly_uds", "glm_terminate_on_failur", "glm_lauch_count", "GLM_MODEL"])
def test_only_our_prefix_is_ours(name: str) -> None:
    assert bool(judged({name: 1}).errors) is name.startswith("glm_")


@pytest.mark.parametrize(
    ("name", "value", "expected"),
    [
        ("glm_launch_count", "two", "a value of type int for glm_launch_count, found 'two' (group all)"),
        ("glm_launch", "maybe", "a value of type bool"),
        ("glm_max_hourly_usd", "12O", "a value of type float"),
        ("glm_engine_args", [1], "a value of type dict"),
        ("glm_model", ["GLM-5.1"], "a value of type str"),
        ("glm_launch_firewall_rules", [22], "a list of values of type dict"),
        ("glm_runtime", "docker", "one of container, venv for glm_runtime, found 'docker'"),
    ],
)
def test_a_value_of_another_type_is_refused(name: str, value: object, expected: str) -> None:
    (error,) = judged({name: value}).errors
    assert expected in error and "Next: " in error


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("glm_launch_count", "2"), ("glm_launch", "yes"), ("glm_launch_count", "{{ size }}"), ("glm_launch_count", ""),
        ("glm_max_hourly_usd", 120), ("glm_max_hourly_usd", None), ("glm_engine_args", {"a": None}),
        ("glm_launch_regions", "us-east-1,us-west-2"), ("glm_serial", 1), ("glm_engine_version", 0.32),
        ("glm_launch_firewall_rules", [{"ports": ["{{ port }}"]}]), ("glm_launch_firewall_rules", ["{{ rule }}"]),
    ],
)  # fmt: skip
def test_what_ansible_would_take_passes_and_templates_are_left_alone(name: str, value: object) -> None:
    assert judged({name: value}) == check.Verdict()


class Sealed:
    """A value as from a vault: to read it is an error."""

    def __str__(self, *_others: object) -> str:
        raise AssertionError("read")

    __repr__ = __bool__ = __eq__ = __iter__ = __len__ = __str__  # type: ignore[assignment]
    __hash__ = object.__hash__


@pytest.mark.parametrize("name", ["glm_api_key", "glm_hub_token", "glm_launch_count"])
def test_what_is_sealed_is_not_read(name: str) -> None:
    assert judged({name: Sealed()}).errors == []


def test_a_secret_is_never_shown() -> None:
    verdict = judged({"glm_api_key": ["s3cret"], "glm_api_kee": "s3cret"})
    assert len(verdict.errors) == 1 and "s3cret" not in str(verdict)


def test_what_play_headers_read_is_refused_where_they_do_not_see_it() -> None:
    (error,) = judged({"glm_hosts": "web"}, "controller").errors
    assert "glm_hosts as an extra variable" in error and "found it in group all" in error and "-e glm_hosts=" in error
    assert judged({"glm_hosts": "web"}).errors == []


@pytest.mark.parametrize("name", ["glm_max_hourly_usd", "glm_terminate_on_failure", "glm_allowed_countries"])
def test_what_the_controller_reads_is_refused_where_it_does_not_see_it(name: str) -> None:
    value = {"glm_max_hourly_usd": 60, "glm_terminate_on_failure": True, "glm_allowed_countries": ["US"]}[name]
    (error,) = judged({name: value}, "hosts").errors
    assert f"expected {name} as an extra variable or of the group all" in error and "found it in group all" in error
    assert f"-e {name}=..., or set it in group_vars/all" in error
    assert judged({name: value}, "controller").errors == judged({name: value}).errors == []


def test_a_value_that_nobody_sees_is_named_beside_one_that_counts_but_not_beside_an_extra_variable() -> None:
    group = check.Place("group glm_fleet", "hosts", {"glm_launch_count": 3})
    seen = check.Place("group all", "controller", {"glm_launch_count": 2})
    extra = check.Place("an extra variable", "all", {"glm_launch_count": 1})
    assert "found it in group glm_fleet" in check.judge(TABLE, [seen, group], "0.2.0").errors[0]
    assert check.judge(TABLE, [extra, seen, group], "0.2.0").errors == []


def test_an_old_name_works_until_its_release_and_is_refused_from_then_on() -> None:
    verdict = judged({"glm_old_precision": "nvfp4"}, release="0.3.9")
    assert verdict.errors == []
    ((text, removed_in),) = verdict.deprecations
    assert removed_in == "0.4.0" and "glm_precision" in text and "until 0.4.0" in text
    verdict = judged({"glm_old_precision": "nvfp4"}, release="0.4.0")
    assert verdict.deprecations == [] and "removed in 0.4.0" in verdict.errors[0]
    assert "Next: set glm_precision" in verdict.errors[0]
    assert table.names(OLD, "glm_precision") == ["glm_precision", "glm_old_precision"]
    # An old name is no remedy for a mistyped one.
    assert "glm_old_precision" not in judged({"glm_old_precison": 1}).errors[0]


def test_facts_are_no_variables() -> None:
    variables = {"glm_plans": [], "glm_modle": 1, "ansible_facts": {"glm_plans": []}, "modle": 1}
    assert check.unknown_names(TABLE, variables) == ["glm_modle"]
