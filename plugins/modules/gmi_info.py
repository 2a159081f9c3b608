# Copyright (c) 2026, glm.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Module: what GMI Cloud sells to an account, and the logs of a container. Runs on the controller."""

from __future__ import annotations

DOCUMENTATION = r"""
module: gmi_info
short_description: List the products of GMI Cloud, or read the logs of a container (experimental)
version_added: 0.2.0
author: glm.fleet contributors (!UNKNOWN)
description:
  - Lists the products of containers, bare-metal nodes and elastic IPs that the account may have, or reads the end of
    the logs of one container.
  - "B(Experimental): written from the vendor's published pages and clients of others, and tested against a simulator
    that is made from these, not against a live account."
  - A product that is listed is no promise of capacity. Nobody publishes the unit of its price, so it is returned as the
    API has it, and must not be used as money.
extends_documentation_fragment:
  - glm.fleet.gmi_auth
  - glm.fleet.cloud_connection
  - glm.fleet.attributes
attributes:
  check_mode:
    support: full
  diff_mode:
    support: N/A
    description: Changes nothing.
  idempotent:
    support: full
options:
  products:
    description: List the products of these.
    type: list
    elements: str
    choices: [containers, baremetals, elastic-ips]
  idc:
    description: Only products of this data centre (IDC), and those that name none.
    type: str
  container_id:
    description:
      - Read the logs of the container with this id. M(glm.fleet.gmi_container) returns it, and so does the inventory as
        C(gmi_id).
    type: str
  log_bytes:
    description: How much of the logs to return at most, their end, in bytes; from 1 to 1048576.
    type: int
    default: 65536
seealso:
  - module: glm.fleet.gmi_container
  - module: glm.fleet.gmi_baremetal
  - plugin: glm.fleet.gmi_cloud
    plugin_type: inventory
"""

EXAMPLES = r"""
- name: See what containers there are in one data centre
  glm.fleet.gmi_info:
    products: [containers, elastic-ips]
    idc: us-denver-1
  register: __products

- name: Read the end of the logs of a container
  glm.fleet.gmi_info:
    container_id: 5d4b0f0e-6a3a-4a0c-8d5c-0a6a4f6f0c11
  register: __seen
"""

RETURN = r"""
products:
  description: The products, by kind and name.
  returned: success
  type: list
  elements: dict
  contains:
    kind:
      description: What it is a product of, as in O(products).
      type: str
      returned: always
    name:
      description: Its id, which options such as C(product) of M(glm.fleet.gmi_container) take.
      type: str
      returned: always
    idc:
      description: Its data centre.
      type: str
      returned: when the API says it, else null
    type:
      description: Its type, in the API's words.
      type: str
      returned: when the API says it, else null
    product_line:
      description: Its line, in the API's words.
      type: str
      returned: when the API says it, else null
    gpu_model:
      description: Its GPU.
      type: str
      returned: when the API says it, else null
    valid:
      description: What the API has under that name. Whether it means in stock, or merely sold, is not published.
      type: bool
      returned: when the API says it, else null
    spec:
      description: Its specification, as the API has it.
      type: dict
      returned: always
    price:
      description: The API's number, of a unit that is not published.
      type: raw
      returned: when the API says it, else null
    price_unit:
      description: Always V(unknown).
      type: str
      returned: always
  sample:
    - kind: containers
      name: container.h200.x8
      idc: us-denver-1
      type: container
      product_line: container
      gpu_model: NVIDIA H200
      valid: true
      spec: {vCPU: "208"}
      price: 2080
      price_unit: unknown
unserved:
  description: Those of O(products) that this account has no products of, by the API's HTTP 404.
  returned: success
  type: list
  elements: str
logs:
  description: The logs of the container. Empty without O(container_id).
  returned: success
  type: dict
  contains:
    container_id:
      description: Its id.
      type: str
      returned: with O(container_id)
    name:
      description: Its name.
      type: str
      returned: with O(container_id)
    text:
      description:
        - The end of what it has written, whole lines, without control characters. Values of its environment of eight
          characters and more, and what looks like a key or a token, are struck out; a program may log others.
      type: str
      returned: with O(container_id)
    left_out_bytes:
      description: How many bytes came before that.
      type: int
      returned: with O(container_id)
  sample:
    container_id: 5d4b0f0e-6a3a-4a0c-8d5c-0a6a4f6f0c11
    name: glm-research-1
    text: "INFO: Application startup complete.\n"
    left_out_bytes: 0
"""

from typing import Any, Dict, List

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.glm.fleet.plugins.module_utils.cloud import api as _cloud_api
from ansible_collections.glm.fleet.plugins.module_utils.cloud.api import text_of
from ansible_collections.glm.fleet.plugins.module_utils.cloud.gmi_cloud import api as gmi_api
from ansible_collections.glm.fleet.plugins.module_utils.cloud.gmi_cloud.module import AUTH_ARGUMENTS, GMI
from ansible_collections.glm.fleet.plugins.module_utils.cloud.module import fail
from ansible_collections.glm.fleet.plugins.module_utils.finding import printable
from ansible_collections.glm.fleet.plugins.module_utils.serving.running import without_secrets
from ansible_collections.glm.fleet.plugins.module_utils.serving.status import redact

ARGUMENTS: Dict[str, Dict[str, Any]] = {
    "products": {"type": "list", "elements": "str", "choices": list(gmi_api.KINDS)},
    "idc": {"type": "str"},
    "container_id": {"type": "str"},
    "log_bytes": {"type": "int", "default": 65536},
}
MOST_LOG_BYTES = 1 << 20
# Shorter values, such as numbers of ports, are in every line.
LEAST_SECRET = 8


class Products:
    """What the account may have of each kind."""

    def __init__(self, module: AnsibleModule, api: gmi_api.GmiApi) -> None:
        self.module = module
        self.api = api
        self.unserved: Dict[str, gmi_api.NotServed] = {}

    def listed(self) -> List[Dict[str, Any]]:
        """The products; fails where the account has those of none of the kinds, as an address without an API does."""
        kinds = list(dict.fromkeys(self.module.params["products"] or ()))
        found = [product for kind in kinds for product in self.of(kind)]
        if kinds and len(self.unserved) == len(kinds):
            raise _cloud_api.BadAnswer("; ".join(map(str, self.unserved.values())))
        for error in self.unserved.values():
            self.module.warn(f"products: {error}")
        return sorted(found, key=lambda product: (kinds.index(product["kind"]), product["name"], product["idc"] or ""))

    def of(self, kind: str) -> List[Dict[str, Any]]:
        """Those of one kind and, where it is given, data centre."""
        wanted = self.module.params["idc"]
        try:
            # Only that of containers is published to know data centres.
            rows = self.api.list_products(kind, wanted if kind == "containers" else None)
        except gmi_api.NotServed as error:
            self.unserved[kind] = error
            return []
        found = [summary_of(kind, row) for row in _cloud_api.usable_rows(f"products of {kind}", rows, "name")]
        return [product for product in found if wanted in (None, product["idc"]) or not product["idc"]]


def summary_of(kind: str, row: Dict[str, Any]) -> Dict[str, Any]:
    """What is returned of a product."""
    spec = row.get("spec")
    parts = [part for part in (spec.values() if isinstance(spec, dict) else ()) if isinstance(part, list)]
    facts = [fact for part in parts for fact in part if isinstance(fact, dict) and text_of(fact.get("name"))]
    return {
        "kind": kind,
        "name": row["name"],
        "idc": text_of(row.get("idc")),
        "type": text_of(row.get("type")),
        "product_line": text_of(row.get("productLine")),
        "gpu_model": text_of(row.get("gpuModel")),
        "valid": row.get("valid"),
        "spec": {fact["name"]: fact.get("value") for fact in facts},
        "price": row.get("price"),
        "price_unit": "unknown",
    }


def logs_of(api: gmi_api.GmiApi, identifier: str, last: int) -> Dict[str, Any]:
    """The end of the logs of a container."""
    row = api.container(identifier)
    received = api.container_logs(identifier, last)
    content, left_out = received.content, received.left_out
    if left_out:
        # The beginning of a line may be half of a secret.
        _half, found, whole = content.partition(b"\n")
        content, left_out = (whole, left_out + len(content) - len(whole)) if found else (content, left_out)
    text = printable(content.decode("utf-8", "replace"), newlines=True)
    return {
        "container_id": identifier,
        "name": text_of(row.get("name")),
        "text": redact(text, secrets_of(row)),
        "left_out_bytes": left_out,
    }


def secrets_of(row: Dict[str, Any]) -> List[str]:
    """What a container was given and must not be shown, the longest first, because one may hold another."""
    given = row.get("envs")
    values = [fact.get("value") for fact in given if isinstance(fact, dict)] if isinstance(given, list) else []
    arguments = row.get("args")
    words = [*str(row.get("command") or "").split(), *map(str, arguments if isinstance(arguments, list) else ())]
    values += [word.partition("=")[2] or word for word, shown in zip(words, without_secrets(words)) if word != shown]
    texts = {value for value in values if isinstance(value, str) and len(value) >= LEAST_SECRET}
    return sorted(texts, key=len, reverse=True)


def main() -> None:
    """Run the module."""
    module = AnsibleModule(
        argument_spec={**AUTH_ARGUMENTS, **ARGUMENTS},
        supports_check_mode=True,
        required_one_of=[("products", "container_id")],
    )
    params = module.params
    subject = f"container {params['container_id']}" if params["container_id"] else "products"
    if not 1 <= params["log_bytes"] <= MOST_LOG_BYTES:
        fail(module, subject, "read", f"log_bytes: expected 1 to {MOST_LOG_BYTES}, found {params['log_bytes']}.", "")
    api = GMI.connect(module, subject, organization=params["organization"])
    products = Products(module, api)
    try:
        found = products.listed()
        logs = logs_of(api, params["container_id"], params["log_bytes"]) if params["container_id"] else {}
    except gmi_api.NoLogs as error:
        fail(module, subject, "read", str(error), "look at it in the console (https://console.gmicloud.ai).")
    except _cloud_api.CloudError as error:
        fail(module, subject, "read", str(error), "correct the cause and run again.")
    module.exit_json(changed=False, products=found, unserved=list(products.unserved), logs=logs)


if __name__ == "__main__":
    main()
