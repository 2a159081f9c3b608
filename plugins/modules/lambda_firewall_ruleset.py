# Copyright (c) 2026, glm.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Module: create, change or delete a Lambda Cloud firewall ruleset. Runs on the controller."""

from __future__ import annotations

DOCUMENTATION = r"""
module: lambda_firewall_ruleset
short_description: Create, change or delete a Lambda Cloud firewall ruleset
version_added: 0.1.0
author: glm.fleet contributors (!UNKNOWN)
description:
  - Makes sure that a ruleset of a region has exactly the given inbound rules, or deletes it. Instances of the region
    are launched with it; see O(glm.fleet.lambda_instance#module:firewall_rulesets).
  - With O(name=global), sets the rules that hold for every instance of the account.
  - Lambda's rules say what may come in. Rules are compared as a set; their order does not count.
extends_documentation_fragment:
  - glm.fleet.lambda_auth
  - glm.fleet.cloud_connection
  - glm.fleet.attributes
attributes:
  check_mode:
    support: full
  diff_mode:
    support: full
  idempotent:
    support: full
options:
  state:
    description: V(absent) deletes the ruleset. The ruleset V(global) cannot be deleted.
    type: str
    choices: [present, absent]
    default: present
  name:
    description: Its name, up to 64 characters, or V(global). The API does not keep names unique; two of one name fail.
    type: str
    required: true
  region:
    description: The region it is for. Needed unless O(name=global).
    type: str
  rules:
    description:
      - All rules of the ruleset; others are removed. An empty list lets nothing in, not even ssh.
      - Needed with O(state=present).
    type: list
    elements: dict
    suboptions:
      protocol:
        description: The protocol. A value that the API adds later is passed on.
        type: str
        required: true
      ports:
        description: First and last port, or one port. Needed unless O(rules[].protocol=icmp), which has none.
        type: list
        elements: int
      source:
        description: IPv4 network that may connect, such as V(203.0.113.0/24). A bare address is a network of one.
        type: str
        required: true
      description:
        description: Why the rule is there, up to 128 characters.
        type: str
        default: ""
  wait_timeout:
    description: Seconds to wait when deleting, while instances that were just terminated still count as its users.
    type: float
    default: 300
  wait_interval:
    description: Seconds between two attempts to delete.
    type: float
    default: 5
notes:
  - Lambda says that firewall rules do not apply in C(us-south-1); the module warns about it.
seealso:
  - module: glm.fleet.lambda_instance
"""

EXAMPLES = r"""
- name: Let the office reach ssh and the endpoint
  glm.fleet.lambda_firewall_ruleset:
    name: glm-office
    region: us-east-1
    rules:
      - {protocol: tcp, ports: [22], source: 203.0.113.0/24, description: ssh}
      - {protocol: tcp, ports: [8000], source: 203.0.113.0/24, description: endpoint}

- name: Delete it
  glm.fleet.lambda_firewall_ruleset:
    name: glm-office
    region: us-east-1
    state: absent
"""

RETURN = r"""
ruleset:
  description: The ruleset. Empty when there is none, and in check mode for one that would be made.
  returned: success
  type: dict
  sample:
    id: c4d291f47f9d436fa39f58493ce3b50d
    name: glm-office
    region: us-east-1
    instance_ids: []
    rules:
      - {protocol: tcp, ports: [22, 22], source: 203.0.113.0/24, description: ssh}
"""

import ipaddress
from typing import Any, Dict, List, Optional

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.glm.fleet.plugins.module_utils.cloud.lambda_cloud import api as lambda_api
from ansible_collections.glm.fleet.plugins.module_utils.cloud.lambda_cloud import module as _lambda_module

GLOBAL = "global"
# "do not apply to the us-south-1 region" (API description, 1.10.0).
WITHOUT_FIREWALL = "us-south-1"

ARGUMENTS: Dict[str, Dict[str, Any]] = {
    "state": {"type": "str", "choices": ["present", "absent"], "default": "present"},
    "name": {"type": "str", "required": True},
    "region": {"type": "str"},
    "rules": {
        "type": "list",
        "elements": "dict",
        "options": {
            "protocol": {"type": "str", "required": True},
            "ports": {"type": "list", "elements": "int"},
            "source": {"type": "str", "required": True},
            "description": {"type": "str", "default": ""},
        },
    },
    "wait_timeout": {"type": "float", "default": 300},
    "wait_interval": {"type": "float", "default": 5},
}


def network_of(source: str) -> str:
    """The source as a network, so that an address equals its /32; what is no network stays as it is."""
    try:
        return str(ipaddress.IPv4Network(source, strict=False))
    except ValueError:
        return source


def rule_from_api(rule: Dict[str, Any]) -> Dict[str, Any]:
    """A rule of the API in the form of the option."""
    ports = rule.get("port_range")
    return {
        "protocol": rule.get("protocol"),
        "ports": list(ports) if isinstance(ports, list) else None,
        "source": network_of(str(rule.get("source_network"))),
        "description": rule.get("description") or "",
    }


def rule_for_api(rule: Dict[str, Any]) -> Dict[str, Any]:
    """A wanted rule in the form of the API."""
    sent = {"protocol": rule["protocol"], "source_network": rule["source"], "description": rule["description"]}
    return {**sent, "port_range": rule["ports"]} if rule["ports"] else sent


def ordered(rules: List[Dict[str, Any]]) -> List[Dict[str, Any]]:
    """The rules in an order that does not depend on the API."""
    return sorted(
        rules, key=lambda rule: (str(rule["protocol"]), rule["ports"] or [], rule["source"], rule["description"])
    )


def rules_of(ruleset: Optional[Dict[str, Any]]) -> List[Dict[str, Any]]:
    """The rules of a ruleset of the API, in the option's form and in order."""
    rules = (ruleset or {}).get("rules")
    return ordered([rule_from_api(rule) for rule in rules if isinstance(rule, dict)]) if isinstance(rules, list) else []


def summary_of(ruleset: Optional[Dict[str, Any]]) -> Dict[str, Any]:
    """What is returned of a ruleset."""
    if ruleset is None:
        return {}
    return {
        "id": ruleset.get("id"),
        "name": ruleset.get("name"),
        "region": lambda_api.region_of(ruleset),
        "instance_ids": ruleset.get("instance_ids") or [],
        "rules": rules_of(ruleset),
    }


class Ruleset(_lambda_module.Resource):
    """One ruleset, named by name and region, or the account's."""

    def __init__(self, module: AnsibleModule, api: lambda_api.LambdaApi) -> None:
        super().__init__(module, api)
        self.region: str = self.params["region"]
        if (self.name == GLOBAL) == bool(self.region):
            self.fail("options", f"expected a region, or none for the ruleset {GLOBAL}.", "correct region or name.")

    @staticmethod
    def subject(params: Dict[str, Any]) -> str:
        """What a failure is about."""
        place = f" in {params['region']}" if params["region"] else ""
        return f"firewall ruleset {params['name']}{place}"

    def find(self) -> Optional[Dict[str, Any]]:
        """The ruleset, or None."""
        if self.name == GLOBAL:
            return self.api.get_global_firewall_ruleset()
        rows = self.api.list_firewall_rulesets()
        found = [row for row in rows if (row["name"], lambda_api.region_of(row)) == (self.name, self.region)]
        if len(found) > 1:
            ids = ", ".join(row["id"] for row in found)
            self.fail("find", f"expected one ruleset of this name, found {ids}.", "delete or rename all but one.")
        return found[0] if found else None

    def wanted(self) -> List[Dict[str, Any]]:
        """The wanted rules in order, with what the API would refuse refused before it is asked."""
        rules = []
        for rule in self.params["rules"]:
            ports = rule["ports"] or []
            if (rule["protocol"] == "icmp") != (not ports) or len(ports) > 2 or ports != sorted(ports):
                self.fail(
                    "rules",
                    f"expected one port or the first and last of a range (none for icmp), found {rule}.",
                    "correct the ports of this rule.",
                )
            if network_of(rule["source"]) == rule["source"] and "/" not in rule["source"]:
                self.fail("rules", f"expected an IPv4 network, found the source {rule['source']!r}.", "correct it.")
            rules.append(
                {
                    **rule,
                    "ports": [ports[0], ports[-1]] if ports else None,
                    "source": network_of(rule["source"]),
                }
            )
        return ordered(rules)

    def end(
        self,
        changed: bool,
        ruleset: Optional[Dict[str, Any]],
        before: List[Dict[str, Any]],
        after: List[Dict[str, Any]],
    ) -> None:
        """Return the result."""
        self.module.exit_json(
            changed=changed, ruleset=summary_of(ruleset), diff={"before": {"rules": before}, "after": {"rules": after}}
        )

    def present(self) -> None:
        """Make or change it unless it has exactly the wanted rules."""
        wanted = self.wanted()
        if self.region == WITHOUT_FIREWALL:
            self.module.warn(
                f"{self.subject(self.params)}: Lambda does not apply firewall rules in {WITHOUT_FIREWALL}."
            )
        found = self.find()
        before = rules_of(found)
        changed = found is None or before != wanted
        if not changed or self.module.check_mode:
            self.end(changed, found, before, wanted)
        self.end(True, self.write(found, wanted), before, wanted)

    def write(self, found: Optional[Dict[str, Any]], wanted: List[Dict[str, Any]]) -> Dict[str, Any]:
        rules = [rule_for_api(rule) for rule in wanted]
        try:
            if found is None:
                return self.api.create_firewall_ruleset(self.name, self.region, rules)
            return self.api.change_firewall_ruleset(found["id"], rules)
        except lambda_api.LambdaError as error:
            now = self.find() if error.outcome_unknown else None
            if now is None or rules_of(now) != wanted:
                self.fail("write", str(error), "correct the cause and run again.")
            return now

    def absent(self) -> None:
        """Delete it if it is there, once its last instance has ended."""
        if self.name == GLOBAL:
            self.fail("options", "the account's own ruleset cannot be deleted.", "set its rules instead.")
        found = self.find()
        before = rules_of(found)
        if found is None or self.module.check_mode:
            self.end(found is not None, found, before, [])
            return
        error = self.delete_when_released(
            lambda: self.api.delete_firewall_ruleset(found["id"]), lambda_api.RULESET_IN_USE
        )
        if error is not None:
            users = ", ".join(str(user) for user in found.get("instance_ids") or []) or "none"
            self.fail("delete", f"{error} Instances that had it: {users}.", "terminate these, then run again.")
        self.end(True, None, before, [])


def main() -> None:
    """Run the module."""
    _lambda_module.bring(Ruleset, ARGUMENTS, required_if=[("state", "present", ["rules"])])


if __name__ == "__main__":
    main()
