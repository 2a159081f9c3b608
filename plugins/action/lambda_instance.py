# Copyright (c) 2026, glm.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Controller side of lambda_instance: prints what the module waits for, which a module cannot do itself."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any, Optional

from ansible_collections.glm.fleet.plugins.plugin_utils.actions.base import FleetAction


class ActionModule(FleetAction):
    """Run the module and read how far it is from a file that it writes."""

    LABEL = "launch"
    _supports_async = True
    _file: Optional[Path] = None

    def _outcome(self) -> dict[str, Any]:
        if self._task.async_val:
            answer: dict[str, Any] = self._execute_module(task_vars=self._task_vars, wrap_async=True)
            return answer
        if self._connection.transport != "local":
            return self._module()
        with tempfile.TemporaryDirectory() as folder:
            self._file = Path(folder) / "progress"
            return self._module(None, {**self._task.args, "progress_file": str(self._file)})

    def _progress(self) -> str:
        try:
            return "" if self._file is None else self._file.read_text("utf-8")
        except OSError:
            return ""
