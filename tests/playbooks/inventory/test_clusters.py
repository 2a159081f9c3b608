"""1-Click Clusters in the inventory, against the simulator over HTTP."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from simulator.lambda_cloud.config import Config
from simulator.lambda_cloud.server import Handle, running

ROOT = Path(__file__).parents[3]
BIN = Path(sys.executable).parent
CLUSTER = "c1" * 16


@pytest.fixture
def cloud() -> Iterator[Handle]:
    with running(Config(port=0)) as (_url, handle):
        seeds = (
            {"name": "head-{n}", "instance_type": "cpu_4x_general", "cluster_id": CLUSTER, "count": 3},
            {"name": "compute-{n}", "cluster_id": CLUSTER, "count": 2, "omit": ["ip"]},
            {"name": "alone"},
        )
        for seed in seeds:
            handle.control("POST", "/instances", seed)
        yield handle


def listing(cloud: Handle, folder: Path, options: str) -> subprocess.CompletedProcess[str]:
    file = folder / "test.lambda.yml"
    file.write_text(f"plugin: glm.fleet.lambda_cloud\nrequest_interval: 0\nretries: 0\n{options}", encoding="utf-8")
    environment = {
        **{name: value for name, value in os.environ.items() if not name.startswith(("LAMBDA", "ANSIBLE"))},
        "LAMBDA_API_KEY": cloud.api_key,
        "LAMBDA_API_URL": cloud.base_url,
        "HOME": str(folder / "home"),
    }
    command = [str(BIN / "ansible-inventory"), "-i", str(file), "--list"]
    return subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)


@pytest.mark.parametrize("in_plain_list", [True, False])
def test_compute_nodes_are_reached_through_a_head(cloud: Handle, tmp_path: Path, in_plain_list: bool) -> None:
    """Whether the plain list has members of clusters, too, nobody says."""
    cloud.control("PATCH", "/settings", {"cluster_members_in_plain_list": in_plain_list})
    done = listing(cloud, tmp_path, f"cluster_ids: [{CLUSTER}]\n")
    assert done.returncode == 0, done.stderr
    listed: dict[str, Any] = json.loads(done.stdout)
    assert sorted(listed["lambda_cluster_role_head"]["hosts"]) == ["head-0", "head-1", "head-2"]
    assert sorted(listed["lambda_cluster_role_compute"]["hosts"]) == ["compute-3", "compute-4"]
    assert len(listed[f"lambda_cluster_{CLUSTER}"]["hosts"]) == 5
    assert len(listed["lambda"]["hosts"]) == 6
    hostvars = listed["_meta"]["hostvars"]
    heads = {hostvars[name]["lambda_id"]: hostvars[name]["lambda_ip"] for name in ("head-0", "head-1", "head-2")}
    first = min(heads)
    for name in ("compute-3", "compute-4"):
        node = hostvars[name]
        assert node["ansible_host"] == node["lambda_private_ip"]
        # Quotes could be part of a template, so core says that this one is not.
        way = node["ansible_ssh_extra_args"]["__ansible_unsafe"]
        assert f"HostKeyAlias={node['lambda_id']} " in way and f"HostKeyAlias={first} " in way
        assert way.endswith(f"-W [%h]:%p ubuntu@{heads[first]}'")
        assert node["ansible_sftp_extra_args"] == node["ansible_scp_extra_args"] == node["ansible_ssh_extra_args"]
    head = hostvars["head-0"]
    assert head["ansible_host"] == head["lambda_ip"] and "ProxyCommand" not in head["ansible_ssh_extra_args"]
    assert hostvars["alone"]["lambda_cluster_id"] is None


def test_without_the_option_nothing_changes(cloud: Handle, tmp_path: Path) -> None:
    done = listing(cloud, tmp_path, "known_hosts_file: ''\n")
    listed = json.loads(done.stdout)
    assert not [name for name in listed if "cluster" in name]
    assert "lambda_cluster_id" not in listed["_meta"]["hostvars"]["alone"]


def test_without_pinned_keys_there_is_still_a_way(cloud: Handle, tmp_path: Path) -> None:
    done = listing(cloud, tmp_path, f"cluster_ids: [{CLUSTER}]\nknown_hosts_file: ''\nssh_user: ''\n")
    hostvars = json.loads(done.stdout)["_meta"]["hostvars"]
    address = min((node["lambda_id"], node["lambda_ip"]) for name, node in hostvars.items() if "head" in name)[1]
    way = hostvars["compute-3"]["ansible_ssh_extra_args"]["__ansible_unsafe"]
    assert way == f"-o 'ProxyCommand=ssh -W [%h]:%p {address}'"
    assert "ansible_ssh_extra_args" not in hostvars["head-0"]


def test_a_cluster_of_others_is_named(cloud: Handle, tmp_path: Path) -> None:
    done = listing(cloud, tmp_path, f"cluster_ids: [{'d2' * 16}]\n")
    said = " ".join(done.stderr.split())
    assert done.returncode != 0
    assert f"cluster_ids: {'d2' * 16} cannot be listed: GET" in said and "no access to this cluster" in said
    assert "the key was refused" not in said
    cloud.fault("error", path="instances$", status=503, times=1)
    done = listing(cloud, tmp_path, f"cluster_ids: [{CLUSTER}]\n")
    assert done.returncode != 0 and "503" in done.stderr and "cluster_ids" not in done.stderr
    both = listing(cloud, tmp_path, f"cluster_ids: [{CLUSTER}]\naccounts: [{{name: a, api_key_env: LAMBDA_API_KEY}}]\n")
    assert "with accounts, name them in a file" in " ".join(both.stderr.split())
