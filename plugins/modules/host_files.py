# Copyright (c) 2026, glm.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

DOCUMENTATION = r"""
module: host_files
short_description: Write a role's small files in one call
version_added: 0.1.0
description:
  - Compares all the given files with what the host has, in one connection, and writes those that differ. A loop of
    M(ansible.builtin.template) costs two connections for each file, changed or not.
  - The text comes rendered, from P(ansible.builtin.template#lookup). Each file is replaced in one step, and missing
    folders above it are made.
author: glm.fleet contributors !UNKNOWN
options:
  files:
    description: The files.
    type: list
    elements: dict
    required: true
    suboptions:
      path:
        description: Path of the file.
        type: path
        required: true
      content:
        description: Its whole text.
        type: str
        default: ''
      wanted:
        description: Whether the file must exist. If false, it is removed.
        type: bool
        default: true
      mode:
        description: Its permissions, octal.
        type: str
        default: '0644'
extends_documentation_fragment:
  - glm.fleet.attributes
attributes:
  check_mode:
    support: full
    details: Says which files would change.
  diff_mode:
    support: full
    details: Shows each file before and after.
  idempotent:
    support: full
"""

EXAMPLES = r"""
- name: Write the settings
  glm.fleet.host_files:
    files:
      - path: /etc/sysctl.d/60-example.conf
        content: "{{ lookup('ansible.builtin.template', 'sysctl.conf.j2') }}"
      - path: /etc/modprobe.d/60-example.conf
        content: "{{ lookup('ansible.builtin.template', 'modprobe.conf.j2') }}"
        wanted: "{{ example_modprobe | length > 0 }}"
"""

RETURN = r"""
written:
  description: Files that were written or removed (or would be).
  returned: success
  type: list
  elements: str
phase:
  description: What failed.
  returned: failure
  type: str
  sample: files
"""

from pathlib import Path
from typing import Any, Optional

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.glm.fleet.plugins.module_utils import files
from ansible_collections.glm.fleet.plugins.module_utils.finding import Unmet
from ansible_collections.glm.fleet.plugins.module_utils.host.module import end


def current(path: Path) -> tuple[Optional[str], Optional[int]]:
    """``(text, permissions)`` of a file, ``(None, None)`` when it is not there."""
    try:
        return path.read_text("utf-8", "replace"), path.stat().st_mode & 0o7777
    except FileNotFoundError:
        return None, None


def diff(path: Path, before: Optional[str], after: Optional[str]) -> dict[str, str]:
    return {
        "before": before or "",
        "after": after or "",
        "before_header": str(path) if before is not None else "",
        "after_header": str(path) if after is not None else "",
    }


def write(module: AnsibleModule, path: Path, text: str, mode: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o755)
    # A power cut must not leave an empty program beside the unit that runs it.
    files.write_text(path, text, mode, durable=True, move=module.atomic_move)
    # atomic_move keeps the permissions of a file that was there.
    path.chmod(mode)


def write_all(module: AnsibleModule) -> dict[str, Any]:
    """Write or remove the files that differ. Raises Unmet with what was written before the first that cannot be."""
    written: list[str] = []
    diffs: list[dict[str, str]] = []
    for file in module.params["files"]:
        path, mode = Path(file["path"]), int(file["mode"], 8)
        after = file["content"] if file["wanted"] else None
        try:
            before, before_mode = current(path)
            if before == after and (after is None or before_mode == mode):
                continue
            if not module.check_mode:
                path.unlink() if after is None else write(module, path, after, mode)
        except OSError as error:
            raise Unmet(
                f"to write {path}",
                f"{error.strerror}. Written so far: {', '.join(written) or 'none'}",
                "fix that on the host and run again",
            ) from error
        written.append(str(path))
        diffs.append(diff(path, before, after))
    return {"changed": bool(written), "written": written, "diff": diffs}


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "files": {
                "type": "list",
                "elements": "dict",
                "required": True,
                "options": {
                    "path": {"type": "path", "required": True},
                    "content": {"type": "str", "default": ""},
                    "wanted": {"type": "bool", "default": True},
                    "mode": {"type": "str", "default": "0644"},
                },
            }
        },
        supports_check_mode=True,
    )
    end(module, "files", lambda: write_all(module))


if __name__ == "__main__":
    main()
