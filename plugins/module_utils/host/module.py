# Copyright (c) 2026, glm.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""How the modules that run on hosts end: with their result, or with an error in the collection's form.

This module util is PRIVATE to the collection.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Optional

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.glm.fleet.plugins.module_utils.finding import QuotingError


def end(module: AnsibleModule, phase: str, work: Callable[[], dict[str, Any]], labelled: bool = True) -> None:
    """Do a module's work and end with what it returns, or with the error that it raises for people.

    An error may name another phase of its own. ``labelled``: the phase stands before its text, which an action that
    words errors itself does not need.
    """
    result: dict[str, Any] = {}
    problem: Optional[QuotingError] = None
    try:
        result = work()
    except QuotingError as error:
        problem = error
    # Not while the error is handled: ansible-core would print it a second time, without the host.
    if problem is not None:
        fields = {"phase": phase, **problem.more}
        module.fail_json(msg=f"{fields['phase']}: {problem}" if labelled else str(problem), **fields)
    module.exit_json(**result)
