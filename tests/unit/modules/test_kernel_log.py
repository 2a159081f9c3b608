"""The kernel log of a node: each shape that drivers write is known by its meaning, and no healthy node is refused."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from ansible_collections.glm.fleet.plugins.module_utils.finding import Finding, describe
from ansible_collections.glm.fleet.plugins.module_utils.host import kernel_log as collected
from ansible_collections.glm.fleet.plugins.plugin_utils.catalog import kernel_log as catalog
from ansible_collections.glm.fleet.plugins.plugin_utils.catalog.build import CatalogError
from ansible_collections.glm.fleet.plugins.plugin_utils.host.kernel_log import judge

Text = Callable[[str], str]
LINES = yaml.safe_load((Path(__file__).parents[1] / "fixtures/kernel_log.yml").read_text("utf-8"))
RESET, REBOOT = "reset the GPU (nvidia-smi --gpu-reset", "drain the node and reboot it"
REMEDIES = {"reset": RESET, "reboot": REBOOT, "replace": "drain the node, terminate it"}
RECOVERED = "NVRM: Xid (PCI:0000:52:00): 154, GPU recovery action changed from 0x1 (GPU Reset Required) to 0x0 (None)"


def log(*texts: str) -> dict[str, Any]:
    """What a host returns that wrote these lines, one second apart, after a clean boot."""
    lines = ["Linux version 6.8.0-60-generic", *texts]
    buffer = "\n".join(f"[{second:5}.000000] {text}" for second, text in enumerate(lines))
    found = collected.parse_buffer(buffer)
    rows = collected.collapse(text for _at, text in found if collected.SIGNS.search(text))
    return {"lines": len(found), "begins": 0.0, "rows": rows, "left_out": 0, "problems": []}


def judged(*texts: str) -> Finding:
    return judge(log(*texts))


def test_a_log_without_errors_passes() -> None:
    found = judged(
        "nvidia 0000:1b:00.0: enabling device (0140 -> 0142)", "NVRM: loading NVIDIA UNIX Open Kernel Module"
    )
    assert (found["outcome"], found["found"]) == ("passed", "none")


def test_errors_of_programs_are_told_from_those_of_gpus(fixture_text: Text) -> None:
    lines = [text for _at, text in collected.parse_buffer(fixture_text("nvidia/dmesg_xids.txt"))]
    text = describe([judged(*lines)], "gpu-3")
    assert "fatal SXid 20034 on 0000:86:00.0, 1 times" in text and "20009" not in text
    assert "found Xid 79 on 0000:52:00, 2 times" in text and "fallen off the bus" in text and "Xid 31" not in text
    program = judged(*lines[:2])
    assert program["outcome"] == "passed", "a program that crashed is no broken GPU"
    assert program["found"] == "only notes: Xid 31 on 0000:1b:00 (a fault of the program on the GPU)"


@pytest.mark.parametrize("row", LINES["against"], ids=lambda row: row["line"][:60])
def test_what_a_node_must_not_serve_with_is_named_with_its_device_and_remedy(row: dict[str, str]) -> None:
    found = judged(row["line"])
    assert found["outcome"] == "failed", found
    assert re.search(row["says"], found["found"]), found["found"]
    assert REMEDIES.get(row["next"], row["next"]) in found["next"], found["next"]
    assert row["line"].split()[-1] in found["found"], "the line is the evidence"


@pytest.mark.parametrize("line", LINES["notes"])
def test_what_is_no_fault_of_the_node_is_a_note(line: str) -> None:
    found = judged(line)
    assert found["outcome"] == "passed" and found["found"].startswith("only notes: "), found


@pytest.mark.parametrize("line", LINES["nothing"])
def test_what_says_that_all_is_well_is_not_even_a_note(line: str) -> None:
    assert judged(line)["found"] == "none"


def test_a_gpu_that_its_driver_reset_has_recovered_and_its_neighbour_has_not() -> None:
    lost = "NVRM: Xid (PCI:{}): 95, pid=1, Uncontained ECC error"
    init = "NVRM: GPU 0000:52:00.0: RmInitAdapter failed! (0x25:0x40:1470)"
    changed = "NVRM: Xid (PCI:0000:52:00): 154, GPU recovery action changed from 0x0 (None) to 0x1 (GPU Reset Required)"
    recovered = judged(lost.format("0000:52:00"), changed, init, RECOVERED)
    assert recovered["outcome"] == "passed" and "the GPU has recovered" in recovered["found"]
    other = judged(lost.format("0000:52:00"), lost.format("0000:81:00"), RECOVERED)
    assert other["outcome"] == "failed" and "0000:52:00" not in other["found"] + other["next"]
    again = judged(lost.format("0000:52:00"), RECOVERED, lost.format("0000:52:00"))
    assert again["outcome"] == "failed", "it came after the reset"
    broken = judged("NVRM: Xid (PCI:0000:52:00): 64, Row Remapper: failed", RECOVERED)
    assert broken["outcome"] == "failed", "no reset replaces memory"


def test_the_drivers_own_recovery_action_decides_over_the_table() -> None:
    found = judged(
        "NVRM: Xid (PCI:0000:52:00): 119, pid=1, Timeout of GSP",
        "NVRM: Xid (PCI:0000:52:00): 154, GPU recovery action changed from 0x0 (None) to 0x2 (OS Reboot)",
    )
    assert REBOOT in found["next"] and RESET not in found["next"]


def test_one_contained_memory_error_is_dealt_with() -> None:
    lines = ["NVRM: Xid (PCI:0000:52:00): 48, pid=1, DBE", "NVRM: Xid (PCI:0000:52:00): 94, pid=1, Contained"]
    assert judged(*lines)["outcome"] == "passed" and judged(lines[0])["outcome"] == "failed"
    assert judged(*lines, "NVRM: Xid (PCI:0000:52:00): 95, pid=1, Uncontained")["outcome"] == "failed"


def test_errors_of_amd_count_until_the_reset_succeeded(fixture_text: Text) -> None:
    lines = [text for _at, text in collected.parse_buffer(fixture_text("amd/dmesg_ras.txt"))]
    text = describe([judged(*lines)], "gpu-3")
    assert "uncorrectable hardware errors on 0000:75:00.0" in text and "GPU reset begin" in text
    assert judged(*lines, "amdgpu 0000:75:00.0: amdgpu: GPU reset(1) succeeded!")["outcome"] == "passed"
    assert judged(*lines, "amdgpu 0000:c1:00.0: amdgpu: GPU reset(1) succeeded!")["outcome"] == "failed"


def test_what_a_kernel_log_holds_reaches_no_terminal_raw() -> None:
    row = {"line": "\x1b]0;owned\x07NVRM: Xid (PCI:0000:52:00): 79\u202e\x9b2J", "count": 2}
    text = describe([judge({**log(), "rows": [row]})], "gpu-3")
    assert text.isprintable() and "times: NVRM: Xid (PCI:0000:52:00): 79" in text


def entry(at: int, message: Any) -> str:
    return json.dumps({"_SOURCE_MONOTONIC_TIMESTAMP": str(at), "__MONOTONIC_TIMESTAMP": "1", "MESSAGE": message})


BUFFER = "[ 9120.220199] NVRM: Xid (PCI:0000:52:00): 79, GPU has fallen off the bus.\n"


@pytest.mark.parametrize(
    ("journal", "dmesg", "count"),
    [
        ("true", f"printf '{BUFFER}'", 1),
        (f"echo '{entry(9120220199, BUFFER[15:].strip())}'", "true", 1),
        # The same line, and one that is in each only.
        (
            f"echo '{entry(9120220199, BUFFER[15:].strip())}'; echo '{entry(5, BUFFER[15:].strip())}'",
            f"printf '{BUFFER}{BUFFER.replace('9120', '9999')}'",
            3,
        ),
        ("echo '-- No entries --'", f"printf '{BUFFER}'", 1),
        ("echo 'Failed to open: no such journal' >&2; exit 1", f"printf '{BUFFER}'", 1),
    ],
)
def test_journal_and_buffer_are_read_together(
    fake_command: Callable[..., Path], journal: str, dmesg: str, count: int
) -> None:
    fake_command("journalctl", journal)
    fake_command("dmesg", dmesg)
    found = collected.gather(5)
    assert [(row["line"][:8], row["count"]) for row in found["rows"]] == [("NVRM: Xi", count)]
    assert judge(found)["outcome"] == "failed"


@pytest.mark.parametrize(
    ("disk", "removable", "size", "outcome"),
    [
        ("sdb", "1", "2048", "passed"),
        ("sdb", "0", "0", "passed"),
        ("sdb", "0", "1875385008", "failed"),
        ("sdb", None, None, "failed"),
        ("nvme1n1", "0", "0", "failed"),
    ],
)
def test_a_drive_without_its_medium_is_no_broken_disk(
    fake_command: Callable[..., Path], tmp_path: Path, disk: str, removable: str | None, size: str | None, outcome: str
) -> None:
    """The virtual media of a management controller are there and empty, and each probe of them is an error."""
    block = tmp_path / "sys/block" / disk
    block.mkdir(parents=True)
    if removable and size:
        (block / "removable").write_text(f"{removable}\n")
        (block / "size").write_text(f"{size}\n")
    fake_command("journalctl", "true")
    fake_command("dmesg", f"echo '[    1.000000] I/O error, dev {disk}, sector 0 op 0x0:(READ) flags 0x0 phys_seg 1'")
    assert judge(collected.gather(5, tmp_path))["outcome"] == outcome


def test_no_line_at_all_proves_nothing(fake_command: Callable[..., Path]) -> None:
    fake_command("journalctl", "echo '-- No entries --'")
    fake_command("dmesg", "echo 'dmesg: read kernel buffer failed: Operation not permitted' >&2; exit 1")
    found = judge(collected.gather(5))
    assert found["outcome"] == "not_proven"
    assert "cannot be read here" in found["found"] and "Operation not permitted" in found["found"] and found["next"]


def test_a_log_that_has_lost_its_beginning_proves_nothing() -> None:
    late = {**log(), "begins": 86400.5}
    assert "a new log begins" in judge(late)["next"]
    assert judge(late)["outcome"] == "not_proven" and "begins 86,400 s after the boot" in judge(late)["found"]
    assert judge({**log(), "left_out": 9})["outcome"] == "not_proven"
    assert judge({**late, "rows": log(LINES["against"][0]["line"])["rows"]})["outcome"] == "failed"


def test_what_is_not_text_or_not_an_entry_in_the_journal_is_read_all_the_same() -> None:
    rows = [entry(7, [78, 86, 255]), "{", "null", json.dumps({"MESSAGE": "x"}), entry(9, None), entry(8, "a\nb")]
    assert collected.parse_journal("\n".join(rows)) == [(7, "NV\ufffd"), (8, "a"), (8, "b")]


def test_a_storm_leaves_room_for_what_came_before_it() -> None:
    storm = [
        f"NVRM: Xid (PCI:0000:1b:00): 31, pid={n}, name=p{n}, Ch {n:08x}, MMU Fault @ 0x7f_{n:08x}" for n in range(5000)
    ]
    rows = log("NVRM: Xid (PCI:0000:52:00): 79, GPU has fallen off the bus.", *storm)["rows"]
    assert [row["count"] for row in rows] == [1, 5000]


CORRECTED = [
    "{{{n}}}[Hardware Error]: Hardware error from APEI Generic Hardware Error Source: 1",
    "{{{n}}}[Hardware Error]: event severity: corrected",
    "{{{n}}}[Hardware Error]:  Error 0, type: corrected",
    "{{{n}}}[Hardware Error]:   physical_address: 0x00000{n}0",
    "{{{n}}}[Hardware Error]:   node:0 card:{n} module:0 rank:1 bank:{n} row:{n} column:{n}",
    "mce: [Hardware Error]: CPU {n}: Machine Check: 0 Bank {n}: 8c0000400001009{n}",
    "mce: [Hardware Error]: TSC {n}1 ADDR {n}2 MISC {n}3",
    "Memory cgroup out of memory: Killed process {n} (python3) total-vm:{n}kB, anon-rss:{n}kB, oom_score_adj:0",
]


def test_records_of_corrected_errors_push_nothing_out(fake_command: Callable[..., Path], tmp_path: Path) -> None:
    lines = ["NVRM: Xid (PCI:0000:52:00): 79, GPU has fallen off the bus."]
    lines += [text.format(n=n) for n in range(2 * collected.MOST_ROWS) for text in CORRECTED]
    log = tmp_path / "log"
    log.write_text("".join(f"[{second:5}.000000] {text}\n" for second, text in enumerate(lines)), "utf-8")
    fake_command("journalctl", "true")
    fake_command("dmesg", f"cat {log}")
    found = collected.gather(5, tmp_path)
    assert found["left_out"] == 0 and len(found["rows"]) <= len(CORRECTED)
    assert "Xid 79" in judge(found)["found"]


def test_every_rule_is_for_lines_that_a_host_sends() -> None:
    examples = [*(row["line"] for row in LINES["against"]), *LINES["notes"], *LINES["others"]]
    assert [line for line in examples if not collected.SIGNS.search(line)] == []
    for rule in catalog.load().lines:
        for pattern in rule.patterns:
            assert any(catalog.compiled(pattern).search(line) for line in examples), f"no example of {pattern}"
    succeeded = "amdgpu 0000:75:00.0: amdgpu: GPU reset(1) succeeded!"
    assert collected.SIGNS.search(succeeded) and collected.SIGNS.search(RECOVERED)


def test_a_table_with_an_xid_twice_or_a_broken_pattern_is_refused(tmp_path: Path) -> None:
    def table(**changes: Any) -> None:
        whole = {"xids": [], "recovery": {}, "sxids": {"action": "reboot", "always_fatal": []}, "lines": []}
        (tmp_path / "kernel_log.yml").write_text(json.dumps({**whole, **changes}), "utf-8")
        catalog.load.cache_clear()

    row = {"name": "a", "numbers": [79], "action": "reboot"}
    table(xids=[row, row])
    with pytest.raises(CatalogError, match="79 is in two rows"):
        catalog.load(tmp_path)
    table(lines=[{"name": "a", "patterns": ["(", "b"], "action": "reboot"}])
    with pytest.raises(CatalogError, match="is no pattern"):
        catalog.load(tmp_path)
    catalog.load.cache_clear()
