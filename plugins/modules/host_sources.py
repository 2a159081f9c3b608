# Copyright (c) 2026, glm.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

DOCUMENTATION = r"""
module: host_sources
short_description: Find the apt sources that a host already has, and check the keys of those that it lacks
version_added: 0.1.0
description:
  - Compares sources that are to be added with C(/etc/apt/sources.list) and the C(.list) and C(.sources) files of
    C(/etc/apt/sources.list.d). apt reads no source at all once two of them name one address and suite with different
    keys, so the sources of a provider's image have to be known before another is added.
  - Sources that are switched off do not count, nor does what an earlier run added under the same name.
  - Fails where the host's source lacks a required component, as neither using it nor adding another would work.
  - The key of a source that the host lacks, and for which C(fingerprints) are given, is fetched, compared with them,
    and only then put into C(/etc/apt/keyrings). A key with another fingerprint is refused with both.
author: glm.fleet contributors !UNKNOWN
options:
  sources:
    description:
      - The sources, as M(ansible.builtin.deb822_repository) takes them - C(name), C(uris), C(suites) (V(/) when left
        out) and C(components); C(key), the address or path of its key, and C(fingerprints), those that the primary
        keys in it may have. Other keys are not looked at.
    type: list
    elements: dict
    required: true
extends_documentation_fragment:
  - glm.fleet.attributes
attributes:
  check_mode:
    support: full
    details: Keys are fetched and compared, and not put into their folder.
  diff_mode:
    support: none
    details: Keys are public and long; their paths are returned.
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
keys:
  description: The keys that have a given fingerprint, by the name of their source; they are trusted by path.
  returned: success
  type: dict
  sample: {glm-docker: /etc/apt/keyrings/glm-docker.asc}
phase:
  description: What failed.
  returned: failure
  type: str
  sample: packages
"""

import http.client
import urllib.error
from pathlib import Path
from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.urls import open_url

from ansible_collections.glm.fleet.plugins.module_utils import files, unreachable
from ansible_collections.glm.fleet.plugins.module_utils.finding import Unmet
from ansible_collections.glm.fleet.plugins.module_utils.host import openpgp
from ansible_collections.glm.fleet.plugins.module_utils.host.apt import present, twins
from ansible_collections.glm.fleet.plugins.module_utils.host.commands import run
from ansible_collections.glm.fleet.plugins.module_utils.host.module import end

FOLDER = Path("/etc/apt")
# A vendor's key is a few kB.
LARGEST_KEY = 1_000_000
FETCH_SECONDS = 30


def adopted(wanted: list[dict[str, Any]]) -> dict[str, Any]:
    """Which of the ``wanted`` sources the host already has. Raises Unmet for one that lacks a component."""
    names = {source["name"] for source in wanted}
    others = [source for source in present(FOLDER) if source["name"] not in names]
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


def checked_keys(wanted: list[dict[str, Any]], write: bool) -> dict[str, Any]:
    """The keys of these sources that have fingerprints to be compared with. Raises Unmet for a key that has others."""
    keys = {}
    for source in wanted:
        if source.get("fingerprints") and source.get("key"):
            data = _key_of(source)
            _compare(source, data)
            # The name that ansible.builtin.deb822_repository would give it.
            path = FOLDER / "keyrings" / f"{source['name']}.{'asc' if openpgp.is_armoured(data) else 'gpg'}"
            keys[source["name"]] = (path, data)
    lacking = [(path, data) for path, data in keys.values() if not path.is_file() or path.read_bytes() != data]
    for path, data in lacking if write else []:
        files.write_bytes(path, data, files.READABLE)
    return {"changed": bool(lacking), "keys": {name: str(path) for name, (path, _data) in keys.items()}}


def _key_of(source: dict[str, Any]) -> bytes:
    """The file with the key of a source."""
    key = str(source["key"])
    try:
        if "://" not in key:
            return Path(key).read_bytes()
        with open_url(key, timeout=FETCH_SECONDS, http_agent="glm-fleet") as answer:
            data: bytes = answer.read(LARGEST_KEY + 1)
    except urllib.error.HTTPError as error:
        found = f"HTTP {error.code}"
    except (OSError, http.client.HTTPException, ValueError) as error:
        found = unreachable.why(error, key) if "://" in key else str(error)
    else:
        if len(data) <= LARGEST_KEY:
            return data
        found = f"more than {LARGEST_KEY} bytes"
    raise Unmet(
        f"the key of the apt source {source['name']} at {key}",
        found,
        "check the network and the proxy of this host, or name another address or path of the key",
    )


def _compare(source: dict[str, Any], data: bytes) -> None:
    """Raises Unmet unless every key in the file is an expected one."""
    expected = {str(text).replace(" ", "").upper() for text in source["fingerprints"]}
    try:
        shown = openpgp.fingerprints(data)
    except openpgp.NoKeyring as error:
        found = str(error)
    else:
        others = [fingerprint for fingerprint in shown if fingerprint not in expected]
        if not others:
            return
        found = f"one with {', '.join(others)}"
    raise Unmet(
        f"the key of the apt source {source['name']} at {source['key']} to have the fingerprint "
        f"{' or '.join(sorted(expected))}",
        f"{found}; it was not trusted",
        "find out whether something between this host and the vendor answers in its place. Where the vendor itself "
        "announces a new key, give the source that one as fingerprints",
    )


def work(wanted: list[dict[str, Any]], write: bool) -> dict[str, Any]:
    """The module's result."""
    found = adopted(wanted)
    names = {source["name"] for source in found["adopted"]}
    return {**found, **checked_keys([source for source in wanted if source["name"] not in names], write)}


def main() -> None:
    module = AnsibleModule(
        argument_spec={"sources": {"type": "list", "elements": "dict", "required": True}}, supports_check_mode=True
    )
    end(module, "packages", lambda: work(module.params["sources"], not module.check_mode))


if __name__ == "__main__":
    main()
