"""Which hosts the filters of an inventory choose, and what they refuse."""

from __future__ import annotations

import re
from typing import Any

import pytest

from ansible_collections.glm.fleet.plugins.plugin_utils.cloud import selection
from ansible_collections.glm.fleet.plugins.plugin_utils.cloud.lambda_cloud import hosts as lambda_hosts
from tests.playbooks.lambda_api.fake_cloud import make_instance

NAMED = {
    f"{sign}{option}": key
    for option, key in (("regions", "region"), ("instance_types", "instance_type"))
    for sign in ("", "exclude_")
}
EMPTY: dict[str, Any] = {
    **{option: [] for option in (*selection.OPTIONS, *NAMED)},
    "tags": {},
    "exclude_tags": {},
    "tag_selector": None,
}
TAGS = {"glm-fleet": "default", "rack": "7", "env": "prod-eu", "old": "", "spot": "true"}


def chosen(options: dict[str, Any], **changes: Any) -> selection.Chosen:
    """What the options choose of one active instance in us-east-1."""
    tags = [{"key": key, "value": value} for key, value in changes.pop("tags", TAGS).items()]
    host = lambda_hosts.host_of(make_instance(1, tags=tags, **changes))
    return selection.choose([host], selection.conditions({**EMPTY, **options}, NAMED, "The Cloud", True))


def accepted(options: dict[str, Any], **changes: Any) -> bool:
    return chosen(options, **changes).positions == [0]


@pytest.mark.parametrize(
    ("conditions", "expected"),
    [
        ({}, True),
        ({"statuses": ["booting", "active"]}, True),
        ({"statuses": ["booting"]}, False),
        ({"regions": ["us-*"]}, True),
        ({"regions": ["europe-*"]}, False),
        ({"exclude_regions": ["us-east-?"]}, False),
        ({"instance_types": ["gpu_8x_*"]}, True),
        ({"exclude_instance_types": ["*b200*"]}, False),
        ({"name_patterns": ["node-[0-9]"]}, True),
        ({"name_patterns": ["NODE-*"]}, False),
        ({"exclude_name_patterns": ["node-*"]}, False),
        ({"tags": {"glm-fleet": None}}, True),
        ({"tags": {"glm-fleet": "default", "rack": 7}}, True),
        ({"tags": {"glm-fleet": "other"}}, False),
        ({"tags": {"absent": None}}, False),
        ({"exclude_tags": {"rack": "8"}}, True),
        ({"exclude_tags": {"rack": None}}, False),
        ({"tags": {"glm-fleet": ["prod", "default"]}}, True),
        ({"tags": {"glm-fleet": ["prod", "dev"]}}, False),
        ({"tags": {"env": "prod-*"}}, True),
        ({"tags": {"env": ["dev-*", "*-eu"]}}, True),
        ({"tags": {"spot": True}}, True),
        ({"tags": {"old": ""}}, True),
        ({"tags": {"rack": [7, 8]}}, True),
        ({"exclude_tags": {"glm-fleet": ["prod", "default"]}}, False),
        ({"exclude_tags": {"glm-fleet": "d*"}}, False),
        ({"exclude_tags": {"glm-fleet": ["prod", "dev"]}}, True),
        ({"exclude_tags": {"absent": None, "rack": 7}}, False),
        ({"statuses": ["Active"]}, True),
        ({"exclude_statuses": ["ACT*"]}, False),
        ({"statuses": ["active"], "exclude_statuses": ["active"]}, True),
        ({"tag_selector": "glm-fleet"}, True),
        ({"tag_selector": "absent"}, False),
        ({"tag_selector": "!absent, old"}, True),
        ({"tag_selector": "!old"}, False),
        ({"tag_selector": "glm-fleet=default,rack==7"}, True),
        ({"tag_selector": "env = prod-*"}, True),
        ({"tag_selector": "rack!=7"}, False),
        ({"tag_selector": "absent!=7"}, True),
        ({"tag_selector": "rack in (6, 7), glm-fleet"}, True),
        ({"tag_selector": "rack in (6,8)"}, False),
        ({"tag_selector": "rack notin (6,7)"}, False),
        ({"tag_selector": "absent notin (6,7),rack notin (8)"}, True),
        ({"tag_selector": "old="}, True),
        ({"tag_selector": "  "}, True),
        ({"include_filters": [{"region": "eu-*"}, {"region": "us-*", "status": "ACTIVE"}]}, True),
        ({"include_filters": [{"region": "us-*", "status": "booting"}]}, False),
        ({"include_filters": [{"tag:rack": [6, 7], "accelerator": "B200"}]}, True),
        ({"include_filters": [{"private_address": None}]}, True),
        ({"exclude_filters": [{"name": "node-*", "region": "eu-*"}, {"tag:absent": None}]}, True),
        ({"exclude_filters": [{"tag:absent": None}, {"name": "node-*", "region": "us-*"}]}, False),
        ({"include_filters": [{"name": "node-*"}], "exclude_filters": [{"tag:old": None}]}, False),
    ],
)
def test_selection(conditions: dict[str, Any], expected: bool) -> None:
    assert accepted(conditions) is expected


@pytest.mark.parametrize("status", ["contactable", "", None, 7])
def test_a_status_that_nobody_knows_is_kept_unless_others_are_named(status: Any) -> None:
    gone = {"exclude_statuses": ["terminating", "terminated", "preempted"]}
    assert accepted(gone, status=status)
    assert not accepted({**gone, "statuses": ["active"]}, status=status)
    assert not accepted(gone, status="Terminated")


def test_each_condition_counts_what_it_left_out() -> None:
    options = {"regions": ["us-*"], "exclude_tags": {"rack": None}, "tag_selector": "absent"}
    hosts = [
        lambda_hosts.host_of(
            make_instance(number, region={"name": region}, tags=[{"key": "rack", "value": "1"}][:tags])
        )
        for number, (region, tags) in enumerate([("eu-1", 1), ("eu-1", 0), ("us-1", 1), ("us-1", 0)])
    ]
    found = selection.choose(hosts, selection.conditions({**EMPTY, **options}, NAMED, "The Cloud", True))
    assert found.positions == []
    assert found.left_out == {"regions": 2, "exclude_tags": 1, "tag_selector": 1}


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"regions": [None]}, "regions: expected text or a shell pattern, found nothing"),
        ({"regions": [{"a": 1}]}, "regions: expected text or a shell pattern, found a mapping"),
        ({"tags": {"a": []}}, "tags: a: expected a value or several, found an empty list"),
        ({"exclude_tags": {"a": {"b": 1}}}, "exclude_tags: a: expected text or a shell pattern, found a mapping"),
        ({"exclude_tags": {"a": ["b", None]}}, "exclude_tags: a: expected text or a shell pattern, found nothing"),
        ({"tag_selector": "a=b c=d, e"}, "tag_selector: expected parts"),
        (
            {"tag_selector": "env notin ()"},
            "tag_selector: expected values in the brackets, found none in 'env notin ()'",
        ),
        ({"tag_selector": "a=b, env in ( )"}, "tag_selector: expected values in the brackets, found none"),
        ({"tag_selector": "a in b"}, "tag_selector: expected parts such as key=value"),
        ({"tag_selector": "a,,b"}, "found ''"),
        ({"tag_selector": "a in (b"}, "tag_selector: expected parts"),
        ({"tag_selector": "a==b=c"}, "tag_selector: expected parts"),
        ({"include_filters": [{}]}, "include_filters[0]: expected a mapping such as"),
        ({"include_filters": ["us-*"]}, "include_filters[0]: expected a mapping such as"),
        (
            {"exclude_filters": [{"region": "a"}, {"regin": "us-*"}]},
            "exclude_filters[1]: unknown key regin; did you mean region?",
        ),
        ({"include_filters": [{"tag:": "x"}]}, "include_filters[0]: unknown key tag:"),
        ({"include_filters": [{"region": []}]}, "include_filters[0]: region: expected a value or several"),
    ],
)
def test_what_cannot_be_meant_is_refused(options: dict[str, Any], text: str) -> None:
    with pytest.raises(selection.BadOption, match=re.escape(text)):
        chosen(options)


@pytest.mark.parametrize("options", [{"tags": {"a": None}}, {"exclude_tags": {"a": "b"}}, {"tag_selector": "!a"}])
def test_tags_are_refused_where_a_cloud_has_none(options: dict[str, Any]) -> None:
    with pytest.raises(selection.BadOption, match="The Cloud has no tags"):
        selection.conditions({**EMPTY, **options}, NAMED, "The Cloud", False)
    with pytest.raises(selection.BadOption, match="unknown key tag:a"):
        selection.conditions({**EMPTY, "include_filters": [{"tag:a": None}]}, NAMED, "The Cloud", False)


def test_names_that_are_nowhere_are_refused_with_the_nearest() -> None:
    names = ["us-east-1", "us-south-2", None]
    selection.refuse_unseen("regions", ["us-*", "us-east-1"], names)
    with pytest.raises(selection.BadOption, match=r"regions: 'us-eats-1' fits nothing.*did you mean us-east-1\?"):
        selection.refuse_unseen("regions", ["us-*", "us-eats-1"], names)
    with pytest.raises(selection.BadOption, match="there are us-east-1, us-south-2"):
        selection.refuse_unseen("exclude_regions", ["mars"], names)
    # Where the list may not be whole, only what looks misspelt is refused.
    selection.refuse_unseen("statuses", ["powered_off"], ["running", "stopped"], complete=False)
    with pytest.raises(selection.BadOption, match=r"did you mean running\?"):
        selection.refuse_unseen("statuses", ["runing"], ["running", "stopped"], complete=False)
