"""Inbound firewall rules: the account-wide list, which is also the ruleset ``global``, and regional rulesets."""

from __future__ import annotations

import uuid

from simulator.lambda_cloud import catalogue
from simulator.lambda_cloud.errors import ApiError, missing
from simulator.lambda_cloud.types import Call, Json, RulesetRecord
from simulator.lambda_cloud.world import ALIVE, World


def list_rules(world: World, call: Call) -> list[Json]:
    """GET /firewall-rules."""
    with world.lock:
        return [dict(rule) for rule in world.state.global_rules]


def replace_rules(world: World, call: Call) -> list[Json]:
    """PUT /firewall-rules: the given list replaces all rules, so an empty one closes even port 22."""
    return _set_global(world, call.body["data"])


def get_global(world: World, call: Call) -> Json:
    """GET /firewall-rulesets/global."""
    return {"id": "global", "name": "Global rules", "rules": list_rules(world, call)}


def change_global(world: World, call: Call) -> Json:
    """PATCH /firewall-rulesets/global."""
    if "rules" in call.body:
        _set_global(world, call.body["rules"])
    return get_global(world, call)


def _set_global(world: World, rules: list[Json]) -> list[Json]:
    with world.lock:
        world.state.global_rules = [dict(rule) for rule in rules]
        world.audit("firewall_ruleset", "updated", ["global"])
        return [dict(rule) for rule in world.state.global_rules]


def list_rulesets(world: World, call: Call) -> list[Json]:
    """GET /firewall-rulesets: the regional ones."""
    with world.lock:
        return [_view(world, record) for record in world.state.rulesets.values()]


def create_ruleset(world: World, call: Call) -> Json:
    """POST /firewall-rulesets."""
    region = world.need_region(call.body["region"])
    with world.lock:
        quota = world.settings.ruleset_quota
        if quota is not None and len(world.state.rulesets) >= quota:
            raise ApiError("global/quota-exceeded", f"The account may have {quota} firewall rulesets.")
        rules = [dict(rule) for rule in call.body["rules"]]
        record = RulesetRecord(uuid.uuid4().hex, call.body["name"], region, world.timestamp(), rules)
        world.state.rulesets[record.id] = record
        world.audit("firewall_ruleset", "created", [record.id])
        return _view(world, record)


def get_ruleset(world: World, call: Call) -> Json:
    """GET /firewall-rulesets/{id}."""
    with world.lock:
        return _view(world, _need(world, call.params["id"]))


def change_ruleset(world: World, call: Call) -> Json:
    """PATCH /firewall-rulesets/{id}: name, rules or both."""
    with world.lock:
        record = _need(world, call.params["id"])
        record.name = call.body.get("name", record.name)
        record.rules = [dict(rule) for rule in call.body.get("rules", record.rules)]
        world.audit("firewall_ruleset", "updated", [record.id])
        return _view(world, record)


def delete_ruleset(world: World, call: Call) -> Json:
    """DELETE /firewall-rulesets/{id}: refused while an instance uses it."""
    with world.lock:
        record = _need(world, call.params["id"])
        if _users(world, record):
            raise ApiError("firewall-rulesets/firewall-ruleset-in-use", "Instances use this firewall ruleset.")
        del world.state.rulesets[record.id]
        world.audit("firewall_ruleset", "deleted", [record.id])
    return {}


def _need(world: World, ruleset_id: str) -> RulesetRecord:
    try:
        return world.state.rulesets[ruleset_id]
    except KeyError:
        raise missing("The firewall ruleset does not exist.") from None


def _users(world: World, record: RulesetRecord) -> list[str]:
    return [
        instance.id
        for instance in world.state.instances.values()
        if record.id in instance.firewall_rulesets and instance.status in ALIVE
    ]


def _view(world: World, record: RulesetRecord) -> Json:
    return {
        "id": record.id,
        "name": record.name,
        "region": catalogue.region_view(record.region),
        "rules": [dict(rule) for rule in record.rules],
        "created": record.created,
        "instance_ids": _users(world, record),
    }
