"""The pure part of the inventory: hardware, selection, names, addresses, ssh arguments, unsafe text."""

from __future__ import annotations

import json
import os
import shlex
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

from ansible_collections.glm.fleet.plugins.plugin_utils.cloud import hosts as cloud_hosts
from ansible_collections.glm.fleet.plugins.plugin_utils.cloud import unsafe
from ansible_collections.glm.fleet.plugins.plugin_utils.cloud.lambda_cloud import hosts as lambda_hosts
from tests.playbooks.lambda_api.fake_cloud import B200, make_instance


@pytest.mark.parametrize(
    ("name", "description", "gpus", "expected"),
    [
        ("gpu_8x_b200_sxm6", "B200 (180 GB SXM6)", 8, ("B200", 8, 180, "x86_64")),
        ("gpu_8x_h100_sxm5", "H100 (80 GB SXM5)", 8, ("H100", 8, 80, "x86_64")),
        ("gpu_1x_gh200", "GH200 (96 GB)", 1, ("GH200", 1, 96, "arm64")),
        ("gpu_4x_gb300", "GB300 (288 GB)", 4, ("GB300", 4, 288, "arm64")),
        ("gpu_8x_a100_80gb_sxm4", "A100 (80 GB SXM4)", 8, ("A100", 8, 80, "x86_64")),
        ("gpu_8x_a100", "A100 (40 GB SXM4)", 8, ("A100-40GB", 8, 40, "x86_64")),
        ("gpu_8x_v100_n", "Tesla V100 (16 GB)", 8, ("V100", 8, 16, "x86_64")),
        ("gpu_1x_rtx6000", "RTX 6000 (24 GB)", 1, ("RTX6000", 1, 24, "x86_64")),
        ("gpu_2x_a6000", "NVIDIA RTX A6000 (48 GB)", 2, ("A6000", 2, 48, "x86_64")),
        ("gpu_16x_h200_sxm", None, None, ("H200", 16, None, "x86_64")),
        ("gpu_1x_gh200", None, None, ("GH200", 1, None, "arm64")),
        ("cpu_4x_general", "N/A", 0, (None, 0, None, "x86_64")),
        (None, None, None, (None, 0, None, "x86_64")),
        ("something", "New Thing (1 TB)", 3, (None, 3, None, "x86_64")),
    ],
)
def test_hardware(name: str | None, description: str | None, gpus: int | None, expected: tuple[Any, ...]) -> None:
    kind = {"name": name, "gpu_description": description, "specs": {"gpus": gpus}}
    assert tuple(lambda_hosts.hardware_of(kind)) == expected


@pytest.mark.parametrize(
    ("region", "country"),
    [("us-east-1", "US"), ("australia-east-1", "AU"), ("asia-south-1", None), ("", None), (None, None)],
)
def test_a_country_is_what_the_name_of_the_region_says(region: str | None, country: str | None) -> None:
    assert lambda_hosts.country_of(region) == country
    assert lambda_hosts.host_of(make_instance(1, region={"name": region}))["country"] == country


@pytest.mark.parametrize(
    ("changes", "precedence", "expected"),
    [
        ({}, ["name", "id"], "node-1"),
        ({"name": ""}, ["name", "hostname"], "203-0-0-2.cloud.example"),
        ({"name": None, "hostname": None}, ["name", "hostname"], f"00000001{'c' * 24}"),
        ({}, ["tag:role", "name"], "node-1"),
        ({"tags": [{"key": "role", "value": "head node"}]}, ["tag:role", "name"], "head_node"),
        ({"name": "{{ 7*7 }}"}, ["name"], "7_7"),
        ({"name": "a,b:c[0]!*"}, ["name"], "a_b_c_0"),
        ({"name": "../../etc"}, ["name"], "etc"),
        ({"name": "---"}, ["name", "id"], f"00000001{'c' * 24}"),
        ({"name": "knoten-ä"}, ["name"], "knoten-ä"),
    ],
)
def test_preferred_name(changes: dict[str, Any], precedence: list[str], expected: str) -> None:
    instance = make_instance(1, **changes)
    sources = [cloud_hosts.with_prefix(source, [], "-") for source in precedence]
    assert cloud_hosts.preferred_name(instance, lambda_hosts.host_of(instance), {}, sources) == expected


@pytest.mark.parametrize(
    ("changes", "name", "before", "expected"),
    [
        ({}, "name", ["region"], "us-east-1.node-1"),
        ({"region": None}, "name", ["region"], "node-1"),
        ({"name": None}, "name", ["region"], f"00000001{'c' * 24}"),
        ({"tags": [{"key": "env", "value": "prod"}]}, "id", ["tag:env"], f"prod.00000001{'c' * 24}"),
        ({"hostname": "a b"}, "hostname", ["status"], "active.a_b"),
    ],
)
def test_a_name_with_something_before_it(changes: dict[str, Any], name: str, before: list[str], expected: str) -> None:
    instance = make_instance(1, **changes)
    source = cloud_hosts.with_prefix(name, before, ".")
    assert cloud_hosts.preferred_name(instance, lambda_hosts.host_of(instance), {}, [source]) == expected


def test_unique_names_do_not_depend_on_order() -> None:
    pairs = [("a", "11111111x"), ("b", "22222222x"), ("a", "33333333x"), ("localhost", "44444444x")]
    expected = {
        "11111111x": "a_11111111",
        "22222222x": "b",
        "33333333x": "a_33333333",
        "44444444x": "localhost_44444444",
    }
    for order in (pairs, pairs[::-1]):
        names, clashing = cloud_hosts.unique_names(order, {"localhost"})
        assert dict(zip((identity for _name, identity in order), names)) == expected
        assert clashing == ["a", "localhost"]


def test_unique_names_survive_equal_beginnings_and_taken_suffixes() -> None:
    names, _clashing = cloud_hosts.unique_names(
        [("a", "11111111x"), ("a", "11111111y"), ("b", "22222222"), ("b", "33333333"), ("b_22222222", "4")], set()
    )
    assert len(set(names)) == 5
    assert names[:2] == ["a_11111111x", "a_11111111y"]


@pytest.mark.parametrize(
    ("changes", "precedence", "expected"),
    [
        ({}, ["public"], "203.0.0.2"),
        ({}, ["private", "public"], "10.1.0.2"),
        ({"private_ip": None}, ["private", "public"], "203.0.0.2"),
        ({"ip": "", "private_ip": None}, ["public", "private"], None),
        ({"private_ip": "8.8.8.8"}, ["private", "public"], "203.0.0.2"),
        ({"tags": [{"key": "vpn", "value": "10.9.9.9"}]}, ["tag:vpn", "public"], "10.9.9.9"),
        ({"ip": "-oProxyCommand=touch /tmp/x"}, ["public"], None),
        ({"ip": "2001:db8::1"}, ["public"], "2001:db8::1"),
    ],
)
def test_address(changes: dict[str, Any], precedence: list[str], expected: str | None) -> None:
    instance = make_instance(1, **changes)
    assert cloud_hosts.address_of(instance, lambda_hosts.host_of(instance), precedence) == expected


@pytest.mark.parametrize("identity", ["", None, "-oProxyCommand=x", "a b", "a\nb", "{{ x }}", 7])
def test_an_id_that_ssh_could_misread_is_refused(identity: Any) -> None:
    with pytest.raises(cloud_hosts.BadInstance, match="should be letters and digits"):
        cloud_hosts.check_id({"id": identity})


@pytest.mark.parametrize(
    "path",
    ["/home/user/known_hosts", "/home/a user/known hosts", "/a/it's/k", "/a/100%/k", "/a/$HOME/k", "/a/b#c/k"],
)
def test_ssh_reads_the_known_hosts_path_as_it_is(path: str) -> None:
    before, after = cloud_hosts.pinned_key_arguments(path)
    command = ["ssh", "-F", "none", "-G", *shlex.split(f"{before}abc{after}"), "host.example"]
    settings = subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()
    assert "hostkeyalias abc" in settings
    assert "stricthostkeychecking true" in settings
    # ssh prints a path with blanks the way a configuration file would quote it, and percent signs escaped.
    shown = next(line.removeprefix("userknownhostsfile ") for line in settings if line.startswith("userknownhostsfile"))
    assert shown.strip('"').replace("%%", "%") == path


@pytest.mark.parametrize("path", ['/a"b', "/a\nb", "/a/${x}"])
def test_a_known_hosts_path_that_cannot_be_quoted_is_refused(path: str) -> None:
    with pytest.raises(ValueError, match="known_hosts_file"):
        cloud_hosts.pinned_key_arguments(path)


CPU = {"name": "cpu_4x_general", "gpu_description": "N/A", "specs": {"gpus": 0}}


def test_members_of_a_cluster_and_their_way_in() -> None:
    heads = [
        make_instance(11, instance_type=CPU, status="booting"),
        make_instance(13, instance_type=CPU),
        make_instance(12, instance_type=CPU),
    ]
    compute = [make_instance(14), make_instance(15, ip=None), make_instance(16, private_ip=None)]
    plain = [make_instance(1), make_instance(14, name="listed twice")]
    found = {item["id"]: item for item in lambda_hosts.with_clusters(plain, {"c1": [*heads, *compute]})}
    assert len(found) == 7
    roles = [(item.get("cluster_role"), "jump" in item) for _identity, item in sorted(found.items())]
    assert roles == [(None, False), *[("head", False)] * 3, ("compute", True), ("compute", True), ("compute", False)]
    # The active one with the lowest id, whatever the order of the answer.
    assert {item["jump"]["id"] for item in found.values() if "jump" in item} == {heads[2]["id"]}
    assert found[compute[0]["id"]]["jump"]["address"] == heads[2]["ip"]
    strange = make_instance(9, instance_type=CPU, ip="-oProxyCommand=x")
    assert not [item for item in lambda_hosts.with_clusters([], {"c1": [strange, *compute]}) if "jump" in item]


@pytest.mark.parametrize("path", ["/home/user/known_hosts", "/home/a user/known hosts", "/a/100%/k", "/a/it's/k"])
def test_ssh_reads_the_way_through_a_jump_host_as_it_is(path: str, tmp_path: Path) -> None:
    """Down to the arguments of the ssh that the ssh of the connection starts."""
    stand_in = tmp_path / "ssh"
    stand_in.write_text('#!/bin/sh\nprintf "%s\\n" "$@" > "$ARGUMENTS"\n')
    stand_in.chmod(0o755)
    before, after = cloud_hosts.pinned_key_arguments(path)
    option = cloud_hosts.jump_arguments(f"{before}head1{after}", "ubuntu", "203.0.113.1")
    command = ["ssh", "-F", "none", *shlex.split(option), "10.0.0.7", "true"]
    environment = {**os.environ, "ARGUMENTS": str(tmp_path / "given"), "PATH": f"{tmp_path}:{os.environ['PATH']}"}
    command[0] = shutil.which("ssh") or "ssh"
    subprocess.run(command, env=environment, capture_output=True, check=False)
    given = (tmp_path / "given").read_text().splitlines()
    assert given[-3:] == ["-W", "[10.0.0.7]:22", "ubuntu@203.0.113.1"]
    # What is left is read by the second ssh just as pinned arguments are.
    settings = subprocess.run(
        [command[0], "-F", "none", "-G", *given[:-3], "x"], capture_output=True, text=True, check=True
    ).stdout.splitlines()
    assert "hostkeyalias head1" in settings and "stricthostkeychecking true" in settings
    shown = next(line.removeprefix("userknownhostsfile ") for line in settings if line.startswith("userknownhostsfile"))
    assert shown.strip('"').replace("%%", "%") == path


def test_unavailable_actions() -> None:
    actions = {
        "restart": {"available": False, "reason_code": "vm-is-too-old"},
        "migrate": {"available": False},
        "terminate": {"available": True},
        "new": "thing",
    }
    assert lambda_hosts.unavailable_actions({"actions": actions}) == {"restart": "vm-is-too-old", "migrate": ""}
    assert lambda_hosts.unavailable_actions({}) == {}


def test_kept_drops_credentials() -> None:
    kept = json.dumps(lambda_hosts.kept({**make_instance(1), "unheard_of": "x"}))
    assert "jupyter" not in kept and "unheard_of" not in kept
    assert json.loads(kept)["instance_type"] == B200


@pytest.mark.parametrize("text", ["plain", "us-east-1", "-o A=/b/c:d@e", "", "a b, c; ~x"])
def test_plain_text(text: str) -> None:
    assert unsafe.is_plain_text(text)


@pytest.mark.parametrize("text", ["{{ x }}", "{% x %}", "{# x #}", "f('x')", "a|b", 'a"b', "a\nb", "ä", "a[0]", "$x"])
def test_not_plain_text(text: str) -> None:
    assert not unsafe.is_plain_text(text)


def test_marker_copies_and_keeps_values() -> None:
    value = {"a": ["x", 1, 2.5, None, True, "{{ x }}"], "{{ k }}": "x"}
    marked = unsafe.text_marker()(value)
    assert marked == value
    assert marked is not value
    with pytest.raises(TypeError, match="expected a value as JSON has them"):
        unsafe.text_marker()({"a": object()})


@pytest.mark.parametrize("address", ["0.0.0.0", "8.8.8.8", "::ffff:10.0.0.5", "fe80::1", "", None, 10, "x"])
def test_an_address_is_private_only_in_a_private_range_whatever_the_cloud_says(address: object) -> None:
    assert lambda_hosts.host_of(make_instance(1, private_ip=address))["private_address"] is None
    assert cloud_hosts.first_private([address, "10.0.0.5"]) == "10.0.0.5"
