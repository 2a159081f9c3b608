#!/usr/bin/python
# Copyright (c) 2026, glm.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A secret that a host makes for itself, once."""

from __future__ import annotations

DOCUMENTATION = r"""
module: host_secret
short_description: Make a secret on the host, once
version_added: 0.2.0
description:
  - Returns the secret in a file that only root may read. Makes it, with 256 random bits, when there is none.
  - Of several runs at once one makes it, and all return the same. Nothing replaces a secret that is there.
  - Use C(no_log) on the task.
options:
  path:
    description: The file. Its folder must exist.
    type: path
    required: true
extends_documentation_fragment:
  - glm.fleet.attributes
attributes:
  check_mode:
    support: full
    details: Makes nothing. Before the first real run the value is a placeholder.
  diff_mode:
    support: none
  idempotent:
    support: full
author:
  - glm.fleet contributors (@glm-fleet)
"""

EXAMPLES = r"""
- name: Make the key that engines know, once
  glm.fleet.host_secret:
    path: /etc/glm/engine.key
  register: engine_key
  no_log: true
"""

RETURN = r"""
value:
  description: The secret, one word of letters, digits, C(-) and C(_).
  type: str
  returned: success
phase:
  description: What failed.
  type: str
  returned: failure
  sample: secret
"""

import re
import secrets
import stat
from pathlib import Path
from typing import Any, Optional

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.glm.fleet.plugins.module_utils import files
from ansible_collections.glm.fleet.plugins.module_utils.finding import Unmet
from ansible_collections.glm.fleet.plugins.module_utils.host.module import end

PLACEHOLDER = "made-by-the-first-real-run"


def read(path: Path) -> Optional[str]:
    """The secret in ``path``; None when there is no such file.

    Raises Unmet when it is no secret of this module's, or when others may read it.
    """
    try:
        mode = stat.S_IMODE(path.stat().st_mode)
        text = path.read_text(encoding="utf-8").strip()
    except FileNotFoundError:
        return None
    except (OSError, UnicodeDecodeError) as exc:
        raise Unmet(f"a secret in {path}", exc, f"remove {path}; a new one is made") from exc
    if mode & 0o077:
        raise Unmet(f"{path} to be its owner's only", f"mode {mode:04o}", f"remove {path}; a new one is made")
    if not re.fullmatch(r"[A-Za-z0-9_][A-Za-z0-9_-]{31,}", text):
        expected = f"one word of 32 or more characters in {path}, without a dash in front"
        raise Unmet(expected, "something else", f"remove {path}; a new one is made")
    return text


def made(path: Path, check_mode: bool) -> dict[str, Any]:
    """The secret, made first if there is none. Raises Unmet."""
    found = read(path)
    if found is not None:
        return {"changed": False, "value": found}
    if check_mode:
        return {"changed": True, "value": PLACEHOLDER}
    if not path.parent.is_dir():
        raise Unmet(f"the folder {path.parent}", "none", "run the role serve, which makes it")
    try:
        # Never a dash in front: SGLang makes words of a command line of its configuration file.
        created = files.create_text(path, secrets.token_hex(32) + "\n")
    except OSError as exc:
        raise Unmet(f"to write {path}", exc.strerror or exc, "free space on the host") from exc
    return {"changed": created, "value": read(path)}


def main() -> None:
    module = AnsibleModule(argument_spec={"path": {"type": "path", "required": True}}, supports_check_mode=True)
    end(module, "secret", lambda: made(Path(module.params["path"]), module.check_mode))


if __name__ == "__main__":
    main()
