"""The reader of CDI specs: the same as a library of YAML says, or a refusal that names what is not read."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import pytest
import yaml

from ansible_collections.glm.fleet.plugins.module_utils.host import cdi, gpu

FIXTURES = Path(__file__).parents[1] / "fixtures/nvidia"
# As nvidia-ctk 1.17 and later writes it: numbers, permissions, hooks with arguments.
NVIDIA_CTK = """---
cdiVersion: 0.6.0
kind: nvidia.com/gpu
devices:
    - name: "0"
      containerEdits:
        deviceNodes:
            - path: /dev/nvidia0
              major: 195
              fileMode: 438
              permissions: rwm
              uid: 0
              gid: 0
            - path: /dev/dri/card1
        hooks:
            - hookName: createContainer
              path: /usr/bin/nvidia-cdi-hook
              args:
                - nvidia-cdi-hook
                - create-symlinks
                - --link
                - ../card1::/dev/dri/by-path/pci-0000:18:00.0-card
    - name: GPU-2dbae6a6-4d3e-4c4e-9b0c-0d2a6d1c9e55
      containerEdits: {}
    - name: all
      containerEdits:
        deviceNodes: []
containerEdits:
    env:
        - NVIDIA_VISIBLE_DEVICES=void
        - NVIDIA_CTK_LIBCUDA_DIR=/usr/lib/x86_64-linux-gnu
    mounts:
        - hostPath: /lib/firmware/nvidia/580.126.09/gsp_ga10x.bin
          containerPath: /lib/firmware/nvidia/580.126.09/gsp_ga10x.bin
          options: [ro, nosuid, nodev, rbind, rprivate]
"""


@pytest.mark.parametrize(
    "text",
    [
        *[path.read_text("utf-8") for path in sorted(FIXTURES.glob("cdi*.yaml"))],
        NVIDIA_CTK,
        yaml.safe_dump(yaml.safe_load(NVIDIA_CTK)),
        yaml.safe_dump(yaml.safe_load(NVIDIA_CTK), default_flow_style=True),
        yaml.safe_dump(yaml.safe_load(NVIDIA_CTK), indent=6, sort_keys=False, explicit_end=True),
        json.dumps(yaml.safe_load(NVIDIA_CTK)),
        json.dumps(yaml.safe_load(NVIDIA_CTK), indent=2),
        '- name: "0" # first\n',
        'devices: [{name: "0"}]',
        '"kind": "a/b"\n\'devices\':\n  -\n    name: x\n',
        '{a: [x, y z, "q:r"], b: {c: d}, e, f: , g: null}',
        "a:\n- b\n- c: d\n  e: f\n",
        "a:\n  - - 1\n    - 2\n  - x\n",
        "a: libcuda.so.1::/usr/lib/x.so\n",
        "# first\na: b#c # d\n#x\nb:\n",
        "a: ''\nb: ~\nc: True\nd: -7\n",
        "- a\n-\n- b: c\n",
        "a: it's\nb: 'it''s: here # too'\n",
        "a : b\nc: d \n\n",
        "a: [b, c,]\nd: []\ne: {}\n",
        "a: b\r\nc: d\r\n",
        "-a: b\n",
        "[a#b, [c],\n {d: e}]\n",
        '{"a": "\\u00e9\\n\\"\\\\ \\/", "b":1}',
        "",
    ],
)
def test_what_is_read_is_what_a_library_reads(text: str) -> None:
    assert cdi.load(text) == yaml.safe_load(text)


@pytest.mark.parametrize(
    ("text", "what"),
    [
        ("a: &x 1\nb: *x\n", "line 1: an anchor"),
        ("a: 1\nb: *x\n", "line 2: an alias"),
        ("a: !!str 1\n", "a tag"),
        (yaml.safe_dump(yaml.safe_load(NVIDIA_CTK), default_style='"'), "a tag"),
        ("a: |\n  x\n", "a block of text"),
        ("a: >-\n  x\n", "a block of text"),
        ("a: b\n  c\n", "line 2: .* a text of several lines"),
        ('a: "x\n  y"\n', "does not end on its line"),
        ("a: [b c\n d]\n", "without its comma"),
        ("? a\n: b\n", "a complex key"),
        ("a: 1\na: 2\n", "a duplicate key"),
        ("a: {b: 1, b: 2}\n", "a duplicate key"),
        ("a: 1\n<<: {b: 1}\n", "a merge key"),
        ("---\na: 1\n---\nb: 1\n", "a second document"),
        ("%YAML 1.2\n---\na: 1\n", "a directive"),
        ("a:\n\tb: 1\n", "line 2: a tab"),
        ("a: b: c\n", "on the line of its key"),
        ("a: - b\n", "on the line of its key"),
        ('a: "\\x41"\n', "an escape"),
        ("a: [b\n", "without its comma"),
        ("{a: 1", "without its comma"),
        ("{a: 1}}", "text after a value"),
        ('a: "b" c\n', "text after a value"),
        ("a: 1\n - b\n", "indented too far"),
        ("a:\n  b: 1\n c: 2\n", "indented too far"),
        ("- a\nb: c\n", "belongs to nothing"),
        ("a\nb\n", "belongs to nothing"),
        ("a: [b: c]\n", "without its comma"),
        ("a: `x`\n", "a reserved sign"),
        ("a: 'b\n", "does not end"),
        ("{", "does not end"),
        ("[" * 100_000, "within too many others"),
        ("- " * 100_000, "within too many others"),
        ('{"a":' * 100_000, "within too many others"),
    ],
)
def test_what_is_not_read_is_named(text: str, what: str) -> None:
    with pytest.raises(ValueError, match=what):
        cdi.load(text)


def spec(devices: str) -> str:
    return f"kind: nvidia.com/gpu\ndevices:\n{devices}"


@pytest.mark.parametrize(
    "text",
    [
        spec('- name: "0" # first\n'),
        spec('-\n  name: "0"\n'),
        spec('    - containerEdits: {}\n      "name": "0"\n'),
        spec("- name: 0\n"),
        '"kind": nvidia.com/gpu\ndevices: [{name: "0"}]\n',
        json.dumps({"kind": "nvidia.com/gpu", "devices": [{"name": "0"}]}),
        json.dumps({"kind": "nvidia.com/gpu", "devices": [{"name": "0"}]}, indent="\t"),
    ],
)
def test_facts_and_guard_read_the_same_devices(tmp_path: Path, text: str) -> None:
    (tmp_path / "etc/cdi").mkdir(parents=True)
    (tmp_path / "etc/cdi/nvidia.yaml").write_text(text, "utf-8")
    facts, problems = gpu.read_cdi(tmp_path)
    assert problems == []
    assert facts[0]["devices"] == ["nvidia.com/gpu=0"]
    assert cdi.read(tmp_path)[0][0]["devices"] == {"0": {}}


@pytest.mark.parametrize(
    ("text", "what"),
    [
        ("- a\n", "not the shape of a CDI spec"),
        (spec("- containerEdits: {}\n"), "not the shape of a CDI spec"),
        (spec("  - name: a\n    containerEdits: {deviceNodes: [{major: 1}]}\n"), "not the shape of a CDI spec"),
        (spec("- name: a\n- name: a\n"), "names a device twice"),
        ("kind: nvidia.com/gpu\ndevices:\n", "no kind or no devices"),
        ("kind: gpu\ndevices: [{name: a}]\n", "no kind or no devices"),
    ],
)
def test_a_document_that_is_no_spec_is_refused(text: str, what: str) -> None:
    with pytest.raises(ValueError, match=what):
        cdi.parse_spec(text)


def test_the_file_that_docker_takes() -> None:
    etc, run, other = "/etc/cdi/a.yaml", "/var/run/cdi/a.json", "/etc/cdi/b.yaml"
    expected: dict[tuple[str, ...], Any] = {
        (): (None, []),
        (etc,): (etc, []),
        (etc, run): (run, []),
        (etc, other): (None, [etc, other]),
        (etc, other, run): (None, [etc, other]),
    }
    assert {paths: cdi.taken(paths) for paths in expected} == expected


def test_a_spec_of_eight_gpus_is_read_quickly() -> None:
    node = {"path": "/dev/nvidia0", "hostPath": "/dev/nvidia0", "permissions": "rwm"}
    devices = [{"name": str(number), "containerEdits": {"deviceNodes": [node] * 100}} for number in range(16)]
    text = "---\n" + yaml.safe_dump(json.loads(json.dumps({"kind": "nvidia.com/gpu", "devices": devices})))
    assert len(text) > 100_000
    started = time.process_time()
    assert len(cdi.parse_spec(text)["devices"]) == 16
    assert time.process_time() - started < 3
