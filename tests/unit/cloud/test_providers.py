"""A cloud is registered in one place, and everything about it is where the registration says."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any

import pytest

from ansible_collections.glm.fleet.plugins.plugin_utils.cloud import bill, providers
from ansible_collections.glm.fleet.plugins.plugin_utils.cloud.hosts import Host

ROOT = Path(__file__).parents[3]
PLUGINS = "ansible_collections.glm.fleet.plugins"


def test_every_inventory_of_a_cloud_is_that_of_a_registered_one() -> None:
    stems = {path.stem for path in (ROOT / "plugins/inventory").glob("*.py")} - {"__init__"}
    found = [importlib.import_module(f"{PLUGINS}.inventory.{stem}").InventoryModule.PROVIDER for stem in sorted(stems)]
    assert sorted(provider.name for provider in found) == sorted(provider.name for provider in providers.REGISTERED)


@pytest.mark.parametrize("provider", providers.REGISTERED, ids=lambda provider: provider.name)
def test_a_cloud_repeats_only_what_a_host_has(provider: Any) -> None:
    assert set(provider.hostvars.values()) <= set(Host.__annotations__)
    assert len(set(provider.hostvars.values())) == len(provider.hostvars)


@pytest.mark.parametrize("provider", providers.launching(), ids=lambda provider: provider.name)
def test_a_cloud_that_is_launched_on_has_its_calls_and_modules(provider: Any) -> None:
    calls = {path.stem for path in (ROOT / "roles/launch/tasks" / provider.name).glob("*.yml")}
    assert calls == {"types", "instances", "attachments", "terminate", "reap"}
    for module in (provider.launcher.instances, provider.launcher.instance_types):
        assert (ROOT / "plugins/modules" / f"{module.rpartition('.')[2]}.py").is_file()


@pytest.mark.parametrize(
    ("action", "expected"),
    [
        ("glm.fleet.lambda_instance", True),
        ("lambda_instance", True),
        ("glm.fleet.lambda_instance_type_info", False),
        ("ansible.builtin.debug", False),
    ],
)
def test_what_launches_is_known_by_its_module(action: str, expected: bool) -> None:
    assert (providers.launching_with(action) is not None) is expected


@pytest.mark.parametrize(
    ("groups", "sources", "expected"),
    [
        (["all", "lambda"], [], ["lambda"]),
        (["all"], ["/x/lambda"], ["lambda"]),
        (["all"], ["/x/fleet.lambda.yml"], ["lambda"]),
        (["all"], ["/x/fleet.lambda.yaml", "/x/hosts.yml"], ["lambda"]),
        (["all", "gmi"], ["/x/gmi"], []),
        (["all"], ["/x/lambda/hosts.yml"], []),
    ],
)
def test_a_cloud_is_found_in_an_inventory(groups: list[str], sources: list[str], expected: list[str]) -> None:
    assert [provider.name for provider in providers.in_inventory(groups, sources)] == expected


def test_a_cloud_that_nobody_registered_is_refused_by_name() -> None:
    with pytest.raises(ValueError, match="expected lambda or gmi, found 'lamda'"):
        providers.named("lamda")
    with pytest.raises(ValueError, match="instances of GMI Cloud are launched in its console"):
        providers.launcher_of(providers.named("gmi"))


ANSWER = {
    "instances": [
        {"id": "a", "name": "x-1", "instance_type": "t", "region": "r", "price_usd_per_hour": 2.5},
        {"id": "b", "name": "x\x1b[2J-2", "instance_type": "t", "region": None, "price_usd_per_hour": None},
    ],
    "launched": ["x-3"], "launch_price_usd_per_hour": 2.5, "surplus": [], "price_usd_per_hour": 2.5,
    "cost_usd_so_far": 1, "other_fleets": {"b": 2, "a": 1},
}  # fmt: skip


def test_the_bill_of_a_fleet_names_what_costs_money_unseen() -> None:
    assert bill.of_fleet(ANSWER, "f", ["a"], True) == (
        "fleet f: 2 instance(s) at 2.50 USD per hour, 1.00 USD since they were launched; "
        "1 more would be launched, for at most 2.50 USD per hour; "
        "ORPHANS, tagged as this fleet but not in its inventory: x-2 (see the filters of the inventory, or terminate "
        "them); other fleets of the account: a: 1, b: 2"
    )
    quiet = {**ANSWER, "surplus": ["x-2"], "other_fleets": {}}
    assert bill.of_fleet(quiet, "f", ["a", "b"], False) == (
        "fleet f: 2 instance(s) at 2.50 USD per hour, 1.00 USD since they were launched; "
        "beyond the desired number: x-2 (-e glm_launch_count, or scale)"
    )


def test_the_bill_of_an_ending_names_every_instance_and_its_price() -> None:
    assert bill.of_ending(ANSWER) == (
        "this would terminate 2 instance(s): x-1 (t in r, 2.50 USD per hour) [a, age unknown], x-2 (t in None, price "
        "unknown) [b, age unknown]; together 2.50 USD per hour, and 1.00 USD since they were launched."
    )
    one = {**ANSWER["instances"][0], "age_hours": 3.24, "cost_usd": 8.1}
    assert bill.of_ending({**ANSWER, "ending": [one], "protected": ["x-9"]}) == (
        "this would terminate 1 instance(s): x-1 (t in r, 2.50 USD per hour) [a, 3.2 h old]; together 2.50 USD per "
        "hour, and 8.10 USD since they were launched. Left out because of the tag glm-protect: x-9 (glm_unprotect "
        "lifts it)."
    )


def test_what_stays_after_an_end_is_named_with_its_price() -> None:
    file_systems = [
        {"name": "w", "region": "r", "gib_used": 700.0, "usd_per_month": 140.0},
        {"name": "v", "region": "r", "gib_used": None, "usd_per_month": None},
    ]
    rest = {"file_systems": file_systems, "firewall_rulesets": [{"name": "glm-f", "region": "r"}]}
    answer = {
        "price_usd_per_hour": 2.5,
        "running": ["x-9"],
        "protected": ["x-9"],
        "unsettled": ["x-8"],
        "remaining": rest,
    }
    assert bill.of_remains(answer) == (
        "still running, at 2.50 USD per hour: x-9; kept because of the tag glm-protect: x-9 "
        "(glm_unprotect lifts it); launched without an answer, and may still turn up: x-8; file system w in r (700.0 "
        "GiB, about 140.00 USD per month), which stays on purpose; file system v in r (how much it holds, and so its "
        "price, is not known), which stays on purpose; firewall rulesets, which cost nothing: glm-f in r"
    )
    none: dict[str, Any] = {"file_systems": [], "firewall_rulesets": []}
    assert bill.of_remains({"running": [], "remaining": none}) == ""
    assert "is not known" in bill.of_remains({"running": [], "remaining": None})
