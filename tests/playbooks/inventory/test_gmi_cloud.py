"""The GMI Cloud inventory through the real command line tools, against the simulator over HTTP."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from simulator.gmi_cloud.server import ENVELOPES, Answer, Handle, running
from simulator.gmi_cloud.world import INFERENCE_SCOPE, container_product

ROOT = Path(__file__).parents[3]
BIN = Path(sys.executable).parent
KEY = "eyJh.cluster.key"
SECRETS = ("hf_container_secret", "argument_secret", "node_secret", KEY)


@pytest.fixture
def cloud() -> Iterator[Handle]:
    with running() as handle:
        world = handle.world
        world.add_key(KEY)
        first = world.add_container("glm-prod-1")
        world.add_elastic_ip("203.0.113.8", first)
        world.add_container("glm-test-1", product="container.h200.x1", idc="sim-thailand-1", status="creating")
        world.add_container("notebook", product="container.mystery", idc="unknown-idc")
        world.add_container("old", status="terminating")
        node = world.add_baremetal("glm-prod-metal")
        world.add_elastic_ip("203.0.113.9", node, "baremetal")
        world.add_elastic_ip("203.0.113.10")
        world.products["containers"].append(container_product("gb200", 4))
        yield handle


class Inventory:
    """One inventory file and ansible-inventory on it."""

    def __init__(self, cloud: Handle, folder: Path) -> None:
        self.file = folder / "test.gmi.yml"
        self.environment = {
            **{name: value for name, value in os.environ.items() if not name.startswith(("GMI", "ANSIBLE"))},
            "GMI_API_KEY": KEY,
            "GMI_API_URL": cloud.base_url,
            "HOME": str(folder / "home"),
        }

    def run(self, options: str = "", *arguments: str) -> subprocess.CompletedProcess[str]:
        text = f"plugin: glm.fleet.gmi_cloud\nrequest_interval: 0\nretries: 0\n{options}"
        self.file.write_text(text, encoding="utf-8")
        command = [str(BIN / "ansible-inventory"), "-i", str(self.file), "--list", *arguments]
        return subprocess.run(command, cwd=ROOT, env=self.environment, capture_output=True, text=True, check=False)

    def list(self, options: str = "", *arguments: str) -> dict[str, Any]:
        done = self.run(options, *arguments)
        assert done.returncode == 0, done.stderr
        assert not [secret for secret in SECRETS if secret in done.stdout + done.stderr]
        listed: dict[str, Any] = json.loads(done.stdout)
        return listed

    def refusal(self, options: str = "") -> str:
        done = self.run(options)
        assert done.returncode != 0, done.stdout
        return " ".join(f"{done.stdout} {done.stderr}".split())


@pytest.fixture
def inventory(cloud: Handle, tmp_path: Path) -> Inventory:
    return Inventory(cloud, tmp_path)


def hosts(listed: dict[str, Any], group: str) -> list[str]:
    return sorted(listed.get(group, {}).get("hosts", []))


def names(listed: dict[str, Any]) -> list[str]:
    return sorted(listed["_meta"]["hostvars"])


@pytest.mark.parametrize("envelope", ENVELOPES)
def test_hosts_groups_and_variables(cloud: Handle, inventory: Inventory, envelope: str) -> None:
    cloud.settings.envelope = envelope
    listed = inventory.list()
    assert names(listed) == ["glm-prod-1", "glm-prod-metal", "glm-test-1", "notebook"]
    assert hosts(listed, "glm_fleet") == ["glm-prod-1", "glm-prod-metal", "glm-test-1"]
    assert hosts(listed, "gmi") == names(listed)
    assert hosts(listed, "gmi_region_us_denver_1") == ["glm-prod-1", "glm-prod-metal"]
    assert hosts(listed, "gmi_country_TH") == ["glm-test-1"]
    assert hosts(listed, "gmi_accelerator_H200") == ["glm-prod-1", "glm-test-1"]
    assert hosts(listed, "gmi_kind_baremetal") == ["glm-prod-metal"]
    assert hosts(listed, "gmi_status_creating") == ["glm-test-1"]
    assert hosts(listed, "gmi_no_address") == ["glm-test-1", "notebook"]
    first = listed["_meta"]["hostvars"]["glm-prod-1"]
    identity = cloud.world.containers[0]["id"]
    # ansible_local is core's own.
    unsettled = ("ansible_local", "gmi_created")
    assert {key: first[key] for key in first if not key.endswith("_extra_args") and key not in unsettled} == {
        "ansible_host": "203.0.113.8", "ansible_user": "root", "gmi_id": identity, "gmi_kind": "container",
        "gmi_name": "glm-prod-1", "gmi_status": "running", "gmi_reason": None, "gmi_region": "us-denver-1",
        "gmi_country": "US", "gmi_product": "container.h200.x8", "gmi_ip": "203.0.113.8", "gmi_private_ip": None,
        "gmi_inbound_ip": "10.20.0.5",
        "gmi_accelerator": "H200", "gmi_accelerator_count": 8, "gmi_architecture": "x86_64",
        "glm_host_id": identity, "glm_host_name": "glm-prod-1", "glm_host_provider": "gmi",
        "glm_host_status": "running", "glm_host_instance_type": "container.h200.x8", "glm_host_accelerator": "H200",
        "glm_host_accelerator_count": 8, "glm_host_architecture": "x86_64", "glm_host_public_address": "203.0.113.8",
        "glm_host_private_address": None, "glm_host_region": "us-denver-1", "glm_host_country": "US",
        "glm_host_tags": {}, "glm_host_price_usd_per_hour": None,
    }  # fmt: skip
    assert f"HostKeyAlias={identity} -o StrictHostKeyChecking=yes" in first["ansible_ssh_extra_args"]
    metal = listed["_meta"]["hostvars"]["glm-prod-metal"]
    assert (metal["ansible_user"], metal["ansible_host"]) == ("ubuntu", "203.0.113.9")
    assert (metal["gmi_accelerator"], metal["gmi_accelerator_count"]) == ("B200", 8)
    assert metal["gmi_private_ip"] == "10.30.0.7"
    strange = listed["_meta"]["hostvars"]["notebook"]
    assert (strange["gmi_accelerator"], strange["gmi_accelerator_count"], strange["gmi_country"]) == (None, 0, None)


def test_a_fleet_is_chosen_by_name(inventory: Inventory) -> None:
    assert hosts(inventory.list("fleet: prod\n"), "glm_fleet") == ["glm-prod-1", "glm-prod-metal"]
    assert hosts(inventory.list("fleet_names: [note*]\n"), "glm_fleet") == ["notebook"]


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ("countries: [US]", ["glm-prod-1", "glm-prod-metal"]),
        ("regions: [sim-*]", ["glm-test-1"]),
        ("kinds: [baremetal]", ["glm-prod-metal"]),
        ("products: ['*.x1']", ["glm-test-1"]),
        ("exclude_statuses: []\nname_patterns: [old]", ["old"]),
        ("exclude_name_patterns: ['glm-*']", ["notebook"]),
        ("statuses: [TERMINATING, Creating]", ["glm-test-1", "old"]),
        ("countries: [us]", ["glm-prod-1", "glm-prod-metal"]),
        ("exclude_products: [container.*]", ["glm-prod-metal"]),
        ("include_filters: [{region: sim-*}, {accelerator: B200}]", ["glm-prod-metal", "glm-test-1"]),
        ("exclude_filters: [{instance_type: 'container.*', status: running}]", ["glm-prod-metal", "glm-test-1"]),
    ],
)
def test_filters(inventory: Inventory, options: str, expected: list[str]) -> None:
    assert names(inventory.list(options + "\n")) == expected


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ("tags: {a: b}", "tags: GMI Cloud has no tags; choose by name_patterns or include_filters"),
        ("products: [container.h2000.x8]", "did you mean container.h200.x8?"),
        ("regions: [us-denver-2]", "did you mean us-denver-1?"),
        ("exclude_statuses: [runing]", "did you mean running?"),
        ("countries: [USA]", "countries: expected codes of two letters such as US, found 'USA'"),
        ("countries: [NO]", "countries: expected a country code, found false: put it in quotes"),
        ("ssh_users: {contaner: root}", "ssh_users: unknown kind contaner; did you mean container?"),
        ("country: [US]", "unknown option country; did you mean countries?"),
    ],
)
def test_options_that_cannot_be_meant_are_refused(inventory: Inventory, options: str, text: str) -> None:
    assert text in inventory.refusal(options + "\n")


def test_names_of_products_may_be_absent(cloud: Handle, inventory: Inventory) -> None:
    cloud.settings.broken = {"/containers/products": Answer(503, {"message": "sorry"})}
    assert hosts(inventory.list(), "gmi_accelerator_H200") == ["glm-prod-1", "glm-test-1"]
    said = inventory.run()
    assert "products are taken by their id alone" in " ".join(said.stderr.split())


def test_collections_an_account_lacks_count_as_empty(cloud: Handle, inventory: Inventory) -> None:
    cloud.world.enabled = {"containers"}
    listed = inventory.list()
    assert names(listed) == ["glm-prod-1", "glm-test-1", "notebook"]
    assert "ansible_host" not in listed["_meta"]["hostvars"]["glm-prod-1"]
    told = inventory.run("", "-v")
    assert "baremetals is not enabled" in " ".join(f"{told.stdout} {told.stderr}".split())


def test_an_account_without_any_kind_of_machine_is_no_empty_one(cloud: Handle, inventory: Inventory) -> None:
    cloud.world.enabled = set()
    told = inventory.run("")
    assert "this address serves neither containers nor bare-metal nodes" in " ".join(told.stderr.split())


def test_a_cache_hit_redoes_the_construction(cloud: Handle, inventory: Inventory, tmp_path: Path) -> None:
    cached = f"cache: true\ncache_plugin: ansible.builtin.jsonfile\ncache_connection: {tmp_path / 'cache'}\n"
    first = inventory.list(cached)
    asked = len(cloud.settings.requests)
    again = inventory.list(cached + "keyed_groups: [{key: gmi_kind, prefix: made}]\n")
    assert len(cloud.settings.requests) == asked
    assert names(again) == names(first)
    assert hosts(again, "made_baremetal") == ["glm-prod-metal"]
    stored = "".join(file.read_text() for file in (tmp_path / "cache").iterdir())
    assert not [secret for secret in SECRETS if secret in stored]


def test_accounts_are_kept_apart(cloud: Handle, inventory: Inventory, tmp_path: Path) -> None:
    cloud.world.add_key("eyJh.other", organization="org-2")
    cloud.world.add_container("glm-two", orgId="org-2")
    (tmp_path / "key").touch(0o600)
    (tmp_path / "key").write_text("eyJh.other\n", encoding="utf-8")
    listed = inventory.list(
        "accounts:\n- {name: one, api_key_env: GMI_API_KEY, organization: org-1}\n"
        f"- {{name: two, api_key_file: {tmp_path / 'key'}}}\n"
    )
    assert hosts(listed, "gmi_account_two") == ["glm-two"]
    assert len(hosts(listed, "gmi_account_one")) == 4
    assert {request[2].get("x-organization-id") for request in cloud.settings.requests} == {"org-1", None}


def test_refusals_say_why(cloud: Handle, inventory: Inventory) -> None:
    cloud.world.add_key("eyJh.inference", INFERENCE_SCOPE)
    inventory.environment["GMI_API_KEY"] = "eyJh.inference"
    assert "the key was refused" in (text := inventory.refusal()) and "Cluster Engine scope (ce_resource)" in text
    del inventory.environment["GMI_API_KEY"]
    assert "no API key. Set the environment variable GMI_API_KEY" in inventory.refusal()
    inventory.environment["GMI_API_KEY"] = KEY
    assert "not a member of organization org-7" in inventory.refusal("organization: org-7\n")
    text = inventory.refusal("hostnames: ['tag:role']\n")
    assert "hostnames: expected name, id, ip, private_ip, found 'tag:role'" in text


@pytest.mark.parametrize(
    "broken",
    [
        Answer(500, {"message": "sorry"}),
        Answer(200, [{"id": "a" * 40}] * 30, cut=True),
        Answer(200, {"total": 99, "items": [{"id": "a"}]}),
        Answer(200, None, raw=b"<html>login</html>"),
    ],
)
def test_never_a_part_of_the_fleet(cloud: Handle, inventory: Inventory, broken: Answer) -> None:
    cloud.settings.faults = [broken]
    assert "test.gmi.yml" in inventory.refusal()


def test_text_from_outside_is_not_a_template(cloud: Handle, inventory: Inventory) -> None:
    cloud.world.add_container("glm-{{ lookup('pipe', 'id') }}")
    price = """glm_host_price_usd_per_hour: "{'container.h200.x8': 25.6}[gmi_product] | default(none)\""""
    listed = inventory.list(f"strict: true\ncompose:\n  copy: gmi_name\n  {price}\n")
    prices = {name: found["glm_host_price_usd_per_hour"] for name, found in listed["_meta"]["hostvars"].items()}
    assert (prices["glm-prod-1"], prices["notebook"]) == (25.6, None), "the price that the user knows"
    (host,) = [name for name in names(listed) if "lookup" in name]
    assert "uid=" not in json.dumps(listed["_meta"]["hostvars"][host])


def test_the_ready_inventory_works_by_its_short_name(cloud: Handle, inventory: Inventory) -> None:
    command = [str(BIN / "ansible-inventory"), "-i", "gmi", "--graph", "glm_fleet"]
    environment = {**inventory.environment}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert "glm-prod-metal" in done.stdout, done.stderr
