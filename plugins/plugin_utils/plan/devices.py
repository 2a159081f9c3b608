# Copyright (c) 2026, glm.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a container gets of the host's devices."""

from __future__ import annotations

from dataclasses import dataclass, field

from ansible_collections.glm.fleet.plugins.plugin_utils.plan.choice import Choice


@dataclass(frozen=True)
class Passed:
    """CDI names (NVIDIA), or device files with the groups that own them (AMD), and what Docker has to allow."""

    cdi: list[str] = field(default_factory=list)
    nodes: list[str] = field(default_factory=list)
    groups: list[str] = field(default_factory=list)
    security_options: list[str] = field(default_factory=list)


def passed(choice: Choice) -> Passed:
    """The devices of the replica's container."""
    if choice.accelerator.vendor == "nvidia":
        names = ["all"] if choice.intent.replicas == 1 else [str(index) for index in choice.indices]
        return Passed(cdi=[f"nvidia.com/gpu={name}" for name in names])
    return Passed(
        nodes=["/dev/kfd", "/dev/dri"],
        groups=["video", "render"],
        # ROCm maps memory of other processes of the container, which Docker's default filter forbids (AMD's guide).
        security_options=["seccomp=unconfined"],
    )
