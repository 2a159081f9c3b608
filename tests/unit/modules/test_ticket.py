"""The evidence that goes to a provider: all that its support asks for, and nothing that is nobody's business."""

from __future__ import annotations

from typing import Any

from ansible_collections.glm.fleet.plugins.plugin_utils.host import acceptance, ticket
from tests.unit.modules.test_node_acceptance import FLOORS, PLAN, changed


def written(gathered: dict[str, Any], **variables: Any) -> str:
    report = acceptance.verdict("gpu-3", gathered, [PLAN], FLOORS)
    return ticket.text(report, gathered, variables)


def broken() -> dict[str, Any]:
    """Fourth GPU lost, a line in the log, and words with secrets in them."""
    lines = [{"line": "NVRM: Xid (PCI:0000:13:00): 79, GPU has fallen off the bus.", "count": 3}]
    log = {"lines": 2400, "begins": 0.0, "rows": lines, "left_out": 0, "problems": []}
    gathered = changed("health.kernel_log", log)
    for index, row in enumerate(gathered["facts"]["gpus"]):
        row.update(bus_id=f"00000000:{16 + index:02X}:00.0", uuid=f"GPU-{index:08d}-0000-0000-0000-000000000000")
    gathered["facts"]["gpus"].pop(3)
    gathered["facts"]["pci"]["gpus"] = [
        {"vendor": "nvidia", "device": "0x2901", "bus_id": f"0000:{16 + index:02x}:00.0"} for index in range(8)
    ]
    gathered["health"]["gpu_states"].pop(3)
    gathered["facts"].update(kernel="6.8.0-60-generic", addresses=["203.0.113.9"], boot_id="8f0c")
    gathered["measured"]["network"] = "https://joe:hunter22@mirror.example.com/1GB?token=s3cr3t-s3cr3t: HTTP Error 403"
    return gathered


def test_a_ticket_has_what_a_provider_asks_for() -> None:
    said = written(broken(), glm_host_provider="lambda", glm_host_id="0920582c", glm_host_region="us-east-1")
    assert said.startswith("Acceptance of gpu-3: FAILED at 20")
    for words in (
        *("provider: lambda", "id: 0920582c", "region: us-east-1", "driver: 580.126.09", "kernel: 6.8.0-60-generic"),
        "  0, NVIDIA B200, 00000000:10:00.0, GPU-00000000-0000-0000-0000-000000000000, 1650000000000, 97.00.9A.00.0F",
        *("  ?, nvidia 0x2901 on the PCI bus only, 0000:13:00.0, ?, ?, ?", "nvidia-fabricmanager 580.126.09-1"),
        "  gpu: expected 8 GPUs, found 7",
        "  NVRM: Xid (PCI:0000:13:00): 79, GPU has fallen off the bus. (3 times)",
    ):
        assert words in said, said


def test_a_ticket_has_no_secret_and_no_address() -> None:
    said = written(broken(), glm_host_public_address="203.0.113.9", glm_api_key="abc", glm_host_name={"a": 1})
    assert "mirror.example.com" in said
    for secret in ("hunter22", "s3cr3t", "203.0.113.9", "abc", "containerd"):
        assert secret not in said


def test_a_host_that_says_nothing_still_gets_a_ticket() -> None:
    gathered = broken()
    gathered["health"].update(gpu_states=[], packages={})
    gathered["facts"]["driver"] = {"version": None}
    gathered["health"]["kernel_log"].update(rows=[], problems=["dmesg: not permitted"])
    said = written(gathered)
    assert "driver: ?" in said and "not read: dmesg: not permitted" in said
