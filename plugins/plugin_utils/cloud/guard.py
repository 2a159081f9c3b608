# Copyright (c) 2026, glm.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The process that terminates what a run launched: started by ``give_back.Guard``, it needs no ansible-playbook."""

from __future__ import annotations

import os
import sys

from ansible_collections.glm.fleet.plugins.plugin_utils.cloud import give_back, providers


def main() -> None:
    """Listen to the run, and act when it failed or is gone. Exits with 1 when something is left."""
    os.umask(0o077)
    state = give_back.heard(sys.stdin, give_back.gone, give_back.State())
    if state.done or not state.accounts:
        return
    give_back.say(
        f"run {state.run} {'failed' if state.failed else 'is gone'}; terminating what it launched and what never served"
    )
    through = give_back.until_none(
        [
            give_back.Returning(account(credential), state.served, give_back.say)
            for credential in state.accounts
            for account in [providers.launcher_of(providers.named(credential["provider"])).account]
        ]
    )
    give_back.say("done" if through else "ended with something left, see above")
    sys.exit(0 if through else 1)
