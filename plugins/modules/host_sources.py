# Copyright (c) 2026, glm.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

DOCUMENTATION = r"""
module: host_sources
short_description: Find the apt sources that a host already has under another name
version_added: 0.1.0
description:
  - Compares sources that are to be added with C(/etc/apt/sources.list) and the C(.list) and C(.sources) files of
    C(/etc/apt/sources.list.d). apt reads no source at all once two of them name one address and suite with different
    keys, so the sources of a provider's image have to be known before another is added.
  - Sources that are switched off do not count, nor does what an earlier run added under the same name.
  - Fails where the host's source lacks a required component, as neither using it nor adding another would work.
author: glm.fleet contributors !UNKNOWN
options:
  sources:
    description:
      - The sources, as M(ansible.builtin.deb822_repository) takes them - C(name), C(uris), C(suites) (V(/) when left
        out) and C(components). Other keys are not looked at.
    type: list
    elements: dict
    required: true
extends_documentation_fragment:
  - glm.fleet.attributes
attributes:
  check_mode:
    support: full
    details: It only reads.
  diff_mode:
    support: none
    details: It changes nothing.
  idempotent:
    support: full
"""

EXAMPLES = r"""
- name: Check whether the image has Docker's source
  glm.fleet.host_sources:
    sources:
      - name: glm-docker
        uris: https://download.docker.com/linux/ubuntu
        suites: noble
        components: [stable]
"""

RETURN = r"""
adopted:
  description: What the host has already.
  returned: success
  type: list
  elements: dict
  contains:
    name:
      description: Name of the source.
      type: str
      returned: success
    file:
      description: File that has it.
      type: str
      returned: success
    signed_by:
      description: The key that it is checked with; empty where any key that the host trusts is accepted.
      type: str
      returned: success
phase:
  description: What failed.
  returned: failure
  type: str
  sample: packages
"""

from pathlib import Path
from typing import Any

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.glm.fleet.plugins.module_utils.finding import Unmet
from ansible_collections.glm.fleet.plugins.module_utils.host.apt import Source, parse_deb822, parse_list, twins
from ansible_collections.glm.fleet.plugins.module_utils.host.commands import run
from ansible_collections.glm.fleet.plugins.module_utils.host.module import end

FOLDER = Path("/etc/apt")


def present() -> list[Source]:
    """Every source of the host that is switched on."""
    parts = sorted((FOLDER / "sources.list.d").glob("*"))
    found = []
    for path in [FOLDER / "sources.list", *parts]:
        parse = {".list": parse_list, ".sources": parse_deb822}.get(path.suffix)
        if parse and path.is_file():
            found += parse(path.read_text("utf-8", "replace"), str(path))
    return found


def adopted(wanted: list[dict[str, Any]]) -> dict[str, Any]:
    """Which of the ``wanted`` sources the host already has. Raises Unmet for one that lacks a component."""
    names = {source["name"] for source in wanted}
    others = [source for source in present() if source["name"] not in names]
    architecture = run(("dpkg", "--print-architecture")).stdout.strip()
    found = []
    for source in wanted:
        there = twins(source, others, architecture)
        if not there:
            continue
        lacking = {*(source.get("components") or [])} - {name for twin in there for name in twin["components"]}
        if lacking:
            raise Unmet(
                f"{source['uris']} with the component {', '.join(sorted(lacking))}",
                f"it without in {there[0]['file']}, beside which apt takes no other. Nothing was changed",
                "add the component to that file, or remove the file, and run again",
            )
        found.append({"name": source["name"], "file": there[0]["file"], "signed_by": there[0]["signed_by"]})
    return {"changed": False, "adopted": found}


def main() -> None:
    module = AnsibleModule(
        argument_spec={"sources": {"type": "list", "elements": "dict", "required": True}}, supports_check_mode=True
    )
    end(module, "packages", lambda: adopted(module.params["sources"]))


if __name__ == "__main__":
    main()
