"""The inventory plugin through the real command line tools, against a small cloud over HTTP."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.playbooks.lambda_api.fake_cloud import (
    GH200,
    JUPYTER_TOKEN,
    KEY,
    Answer,
    FakeCloud,
    error,
    make_instance,
    serve,
)

ROOT = Path(__file__).parents[3]
BIN = Path(sys.executable).parent


@pytest.fixture
def cloud() -> Iterator[FakeCloud]:
    with serve() as running:
        running.instances = [
            make_instance(1),
            make_instance(2, status="booting", ip=None, private_ip=None, name="late"),
            make_instance(3, name="arm", instance_type=GH200, tags=None, region={"name": "us-south-2"}),
            make_instance(4, name="gone", status="terminated"),
        ]
        yield running


class Inventory:
    """One inventory file and the tools that read it."""

    def __init__(self, cloud: FakeCloud, folder: Path) -> None:
        self.folder = folder
        self.file = folder / "test.lambda.yml"
        self.environment = {
            **{name: value for name, value in os.environ.items() if not name.startswith(("LAMBDA", "ANSIBLE"))},
            "LAMBDA_API_KEY": KEY,
            "LAMBDA_API_URL": cloud.url,
            "HOME": str(folder / "home"),
            "ANSIBLE_LOCALHOST_WARNING": "false",
        }
        self.errors = ""

    def write(self, options: str = "") -> None:
        text = f"plugin: glm.fleet.lambda_cloud\nrequest_interval: 0\nretries: 0\n{options}"
        self.file.write_text(text, encoding="utf-8")

    def run(self, *command: str) -> subprocess.CompletedProcess[str]:
        done = subprocess.run(
            [str(BIN / command[0]), *command[1:]],
            cwd=ROOT, env=self.environment, capture_output=True, text=True, check=False,
        )  # fmt: skip
        self.errors = " ".join(done.stderr.split())
        return done

    def list(self, options: str = "", *arguments: str) -> dict[str, Any]:
        """The parsed ``--list``; fails the test when the tool does."""
        self.write(options)
        done = self.run("ansible-inventory", "-i", str(self.file), "--list", *arguments)
        assert done.returncode == 0, done.stderr
        listed: dict[str, Any] = json.loads(done.stdout)
        return listed

    def refusal(self, options: str = "", *arguments: str) -> str:
        """What the tool says when it fails, on one line; fails the test when it succeeds."""
        self.write(options)
        done = self.run("ansible-inventory", "-i", str(self.file), "--list", *arguments)
        assert done.returncode != 0, done.stdout
        assert "_meta" not in done.stdout
        return " ".join(f"{done.stdout} {done.stderr}".split())


@pytest.fixture
def inventory(cloud: FakeCloud, tmp_path: Path) -> Inventory:
    return Inventory(cloud, tmp_path)


def hosts(listed: dict[str, Any], group: str) -> list[str]:
    return sorted(listed.get(group, {}).get("hosts", []))


def variables(listed: dict[str, Any], host: str) -> dict[str, Any]:
    found: dict[str, Any] = listed["_meta"]["hostvars"][host]
    return found


# What becomes a host.


def test_hosts_groups_and_variables(cloud: FakeCloud, inventory: Inventory) -> None:
    listed = inventory.list()
    assert len(cloud.requests) == 1
    assert hosts(listed, "lambda") == ["arm", "late", "node-1"]
    expected = {
        "lambda_region_us_east_1": ["late", "node-1"],
        "lambda_region_us_south_2": ["arm"],
        "lambda_type_gpu_8x_b200_sxm6": ["late", "node-1"],
        "lambda_accelerator_B200": ["late", "node-1"],
        "lambda_accelerator_GH200": ["arm"],
        "lambda_status_active": ["arm", "node-1"],
        "lambda_status_booting": ["late"],
        "lambda_tag_glm_fleet_default": ["late", "node-1"],
        "lambda_no_address": ["late"],
        "glm_fleet": ["late", "node-1"],
    }
    assert {group: hosts(listed, group) for group in expected} == expected
    known_hosts = inventory.folder / "home/.local/state/glm-fleet/known_hosts"
    identity = f"00000001{'c' * 24}"
    ssh = f"-o UserKnownHostsFile={known_hosts} -o HostKeyAlias={identity} -o StrictHostKeyChecking=yes"
    found = variables(listed, "node-1")
    found.pop("ansible_local", None)
    assert found == {
        "ansible_host": "203.0.0.2",
        "ansible_user": "ubuntu",
        "ansible_ssh_extra_args": ssh,
        "ansible_sftp_extra_args": ssh,
        "ansible_scp_extra_args": ssh,
        "lambda_id": identity,
        "lambda_name": "node-1",
        "lambda_status": "active",
        "lambda_region": "us-east-1",
        "lambda_instance_type": "gpu_8x_b200_sxm6",
        "lambda_ip": "203.0.0.2",
        "lambda_private_ip": "10.1.0.2",
        "lambda_tags": {"glm-fleet": "default"},
        "lambda_accelerator": "B200",
        "lambda_accelerator_count": 8,
        "lambda_accelerator_memory_gib": 180,
        "lambda_architecture": "x86_64",
        "lambda_price_usd_per_hour": 53.52,
        "glm_host_id": identity,
        "glm_host_name": "node-1",
        "glm_host_provider": "lambda",
        "glm_host_status": "active",
        "glm_host_instance_type": "gpu_8x_b200_sxm6",
        "glm_host_accelerator": "B200",
        "glm_host_accelerator_count": 8,
        "glm_host_architecture": "x86_64",
        "glm_host_public_address": "203.0.0.2",
        "glm_host_private_address": "10.1.0.2",
        "glm_host_region": "us-east-1",
        "glm_host_country": "US",
        "glm_host_tags": {"glm-fleet": "default"},
        "glm_host_price_usd_per_hour": 53.52,
    }
    assert "ansible_host" not in variables(listed, "late")
    assert variables(listed, "arm")["lambda_architecture"] == "arm64"
    assert variables(listed, "arm")["lambda_tags"] == {}


def test_more_variables_on_request(cloud: FakeCloud, inventory: Inventory) -> None:
    cloud.instances[0]["actions"]["restart"] = {"available": False, "reason_code": "vm-is-too-old"}
    listed = inventory.list(
        "more_hostvars: [hostname, vcpus, memory_gib, storage_gib, file_systems, ssh_keys, unavailable_actions]\n"
    )
    found = variables(listed, "node-1")
    assert [found[f"lambda_{name}"] for name in ("vcpus", "memory_gib", "storage_gib")] == [208, 2900, 22528]
    assert found["lambda_hostname"] == "203-0-0-2.cloud.example"
    assert found["lambda_file_systems"] == ["weights"]
    assert found["lambda_ssh_keys"] == ["deploy"]
    assert found["lambda_unavailable_actions"] == {"restart": "vm-is-too-old"}


def test_an_empty_account_is_not_a_failure(cloud: FakeCloud, inventory: Inventory) -> None:
    cloud.instances = []
    assert inventory.list()["_meta"]["hostvars"] == {}
    done = inventory.run("ansible", "glm_fleet", "-i", str(inventory.file), "--list-hosts")
    assert "hosts (0)" in done.stdout
    assert "Could not match" not in inventory.errors


def test_missing_and_strange_fields_do_not_crash(cloud: FakeCloud, inventory: Inventory) -> None:
    bare = {"id": "b" * 32}
    nulls = {**dict.fromkeys(make_instance(1)), "id": "c" * 32}
    strange = {
        "id": "d" * 32, "status": "contactable", "region": "x", "instance_type": [], "tags": {"a": "b"}, "actions": 7,
        "ssh_key_names": "x", "name": 5, "ip": {},
    }  # fmt: skip
    cloud.instances = [bare, nulls, strange]
    listed = inventory.list("statuses: []\nmore_hostvars: [hostname, file_systems, ssh_keys, unavailable_actions]\n")
    assert hosts(listed, "lambda") == ["b" * 32, "c" * 32, "d" * 32]
    assert hosts(listed, "lambda_no_address") == ["b" * 32, "c" * 32, "d" * 32]
    assert hosts(listed, "lambda_status_contactable") == ["d" * 32]
    assert variables(listed, "b" * 32)["lambda_region"] is None


def test_duplicate_names_are_told_apart_or_refused(cloud: FakeCloud, inventory: Inventory) -> None:
    cloud.instances = [make_instance(1, name="same"), make_instance(2, name="same"), make_instance(3, name="lambda")]
    listed = inventory.list()
    assert hosts(listed, "lambda") == ["lambda_00000003", "same_00000001", "same_00000002"]
    assert "get a part of the id: lambda, same" in inventory.errors
    assert "not unique or taken by a group: lambda, same" in inventory.refusal("duplicates: error\n")


def test_an_instance_called_localhost_does_not_become_localhost(cloud: FakeCloud, inventory: Inventory) -> None:
    cloud.instances = [make_instance(1, name="localhost")]
    assert hosts(inventory.list(), "lambda") == ["localhost_00000001"]


def test_options_choose_hosts_names_addresses_and_groups(inventory: Inventory) -> None:
    listed = inventory.list(
        "regions: [us-east-*]\nstatuses: [active]\nhostnames: ['tag:role', hostname]\naddress: [private]\n"
        "ssh_user: root\nknown_hosts_file: ''\nhostvars_prefix: cloud_\ngroup_prefix: l_\n"
        "builtin_groups: [all, region, fleet]\nfleet: other\n"
    )
    name = "203-0-0-2.cloud.example"
    assert listed["all"]["children"] == ["ungrouped", "l", "glm_fleet", "l_region_us_east_1"]
    assert hosts(listed, "l") == [name]
    assert hosts(listed, "glm_fleet") == []
    found = variables(listed, name)
    assert (found["ansible_host"], found["ansible_user"], found["cloud_name"]) == ("10.1.0.2", "root", "node-1")
    assert not [key for key in found if key.startswith("lambda_") or key.endswith("_extra_args")]


def test_names_by_template_and_by_prefix(cloud: FakeCloud, inventory: Inventory) -> None:
    """A template that cannot be evaluated leaves the name to the next source, as constructed does unless strict."""
    cloud.instances[0]["tags"].append({"key": "dns", "value": "{{ 7*7 }}.Head"})
    listed = inventory.list(
        "hostnames:\n- \"{{ lambda_tags['dns'] | lower }}:{{ glm_host_region }}\"\n"
        "- {name: name, prefix: accelerator, separator: '--'}\n- {name: id, prefix: 'tag:glm-fleet'}\n"
    )
    assert hosts(listed, "lambda") == ["7_7_.head_us-east-1", "B200--late", "GH200--arm"]
    named = inventory.list("hostvars_suffix: _gpu\nhostnames: [{name: id, prefix: status}]\n")
    first = variables(named, f"active_00000001{'c' * 24}")
    assert (first["lambda_name_gpu"], first["lambda_accelerator_memory_gib_gpu"]) == ("node-1", 180)
    assert not [key for key in first if key.startswith("lambda_") and not key.endswith("_gpu")]
    assert hosts(named, "lambda_region_us_south_2") and first["glm_host_name"] == "node-1"


def test_what_the_neutral_variables_say_need_not_be_repeated(inventory: Inventory) -> None:
    whole, less = inventory.list(""), inventory.list("repeated_hostvars: false\n")
    groups = [{name: group for name, group in listed.items() if name != "_meta"} for listed in (whole, less)]
    assert groups[0] == groups[1]
    before, after = variables(whole, "node-1"), variables(less, "node-1")
    assert [key for key in after if key.startswith("lambda_")] == ["lambda_accelerator_memory_gib"]
    assert after == {key: before[key] for key in after} and after["glm_host_name"] == "node-1"


def test_fleet_can_be_named_on_the_command_line(inventory: Inventory) -> None:
    assert hosts(inventory.list("", "-e", "glm_fleet_name=default"), "glm_fleet") == ["late", "node-1"]
    assert hosts(inventory.list("", "-e", "glm_fleet_name=other"), "glm_fleet") == []


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ("address: [publik]\n", "address: expected public, private or tag:<key>, found 'publik'"),
        ("hostnames: ['tag:']\n", "hostnames: expected"),
        ("hostnames: [{name: name, prefx: region}]\n", "hostnames: unknown key prefx; did you mean prefix?"),
        ("hostnames: [{prefix: region}]\n", "hostnames: expected name, hostname, id"),
        ("strict: true\nhostnames: ['{{ no_such }}']\n", "hostnames: {{ no_such }} cannot be evaluated"),
        ("hostvars_suffix: '-x'\n", "hostvars_suffix: expected the end of a variable name, found '-x'"),
        ("ca_path: /no/such.pem\n", "ca_path: there is no file /no/such.pem"),
        ("hostvars_prefix: '7-'\n", "hostvars_prefix: expected the beginning of a variable name"),
        ("hostvars_prefix: glm_host_\n", "hostvars_prefix: expected one that does not begin with glm_"),
        ("known_hosts_file: '/a\"b'\n", "known_hosts_file: ssh cannot use"),
        ("base_url: nonsense\n", "base_url must be an http(s) address"),
        ("api_key: '{{ no_such_variable }}'\n", "api_key cannot be evaluated"),
        ("accounts: [{name: a}]\n", "account a: give exactly one of api_key"),
        ("accounts: [{name: a, api_key_env: NOT_SET}]\n", "account a: no API key in api_key_env"),
        ("accounts: [{name: a, api_key: x, colour: y}]\n", "accounts: unknown key colour"),
        ("accounts: [{name: a, api_key_fil: x}]\n", "accounts: unknown key api_key_fil; did you mean api_key_file?"),
        ("accounts: [a]\n", "accounts[0]: expected a mapping with a name, found str"),
        ("region: [us-east-1]\n", "this file: unknown option region; did you mean regions?"),
        ("exclude_tag: {a: b}\nstrikt: true\n", "unknown option exclude_tag, strikt; did you mean exclude_tags?"),
        ("keyed_groups: [{key: lambda_id, prefx: x}]\n", "keyed_groups[0]: unknown key prefx; did you mean prefix?"),
        ("statuses: [runing]\n", "statuses: 'runing' fits nothing that the cloud knows or the account has; there are"),
        ("exclude_statuses: [terminatd]\n", "did you mean terminated?"),
        ("regions: [us-east-*, us-eats-1]\n", "regions: 'us-eats-1' fits nothing"),
        ("exclude_regions: [us-eats-1]\n", "did you mean us-east-1?"),
        ("instance_types: [gpu_8x_b100_sxm6]\n", "did you mean gpu_8x_b200_sxm6?"),
        ("tags: {a: []}\n", "tags: a: expected a value or several, found an empty list"),
        ("include_filters: [{regions: us-*}]\n", "include_filters[0]: unknown key regions; did you mean region?"),
        ("tag_selector: 'a in b'\n", "tag_selector: expected parts such as key=value"),
        ("accounts: [{name: a, api_key: x}, {name: a, api_key: y}]\n", "each needs a name of its own, found a, a"),
    ],
)
def test_bad_options_are_named(inventory: Inventory, options: str, text: str) -> None:
    assert text in inventory.refusal(options)


def test_what_no_instance_has_may_still_be_in_the_cloud(cloud: FakeCloud, inventory: Inventory) -> None:
    """The cloud is asked for its own lists, once, and only when an option names what no instance has."""
    options = f"{CACHE}cache_connection: {inventory.folder}/cache\nexclude_regions: [us-west-9, us-south-*]\n"
    assert hosts(inventory.list(options), "lambda") == ["late", "node-1"]
    assert [request.path for request in cloud.requests] == ["/api/v1/instances", "/api/v1/regions"]
    assert hosts(inventory.list(f"{options}instance_types: [gpu_8x_*]\n"), "lambda") == ["late", "node-1"]
    assert len(cloud.requests) == 2
    assert "exclude_regions: 'us-wets-9' fits nothing" in inventory.refusal(options.replace("us-west", "us-wets"))
    cloud.regions = None
    fresh = options.replace("cache: true", "cache: false")
    assert hosts(inventory.list(fresh), "lambda") == ["late", "node-1"]
    assert "exclude_regions could not be checked for spelling: GET" in inventory.errors


def test_a_status_that_nobody_knows_is_kept_and_said(cloud: FakeCloud, inventory: Inventory) -> None:
    cloud.instances.append(make_instance(5, name="new", status="contactible"))
    cloud.instances.append(make_instance(6, name="off", status="Terminated"))
    assert hosts(inventory.list(), "lambda") == ["arm", "late", "new", "node-1"]
    assert "the status 'contactible' of new is none that Lambda Cloud is known to give" in inventory.errors
    assert hosts(inventory.list("exclude_statuses: [contact*]\n"), "lambda") == ["arm", "gone", "late", "node-1", "off"]
    assert hosts(inventory.list("statuses: [TERMINATED]\n"), "lambda") == ["gone", "off"]


def test_filters_that_leave_out_everything_say_so(inventory: Inventory) -> None:
    assert hosts(inventory.list("regions: [us-south-2]\ntags: {glm-fleet: [prod, d*]}\n"), "lambda") == []
    text = (
        "of 4 machines the filters of this file left out 4: regions 2, tags 1, exclude_statuses 1. So there is no host"
    )
    assert text in inventory.errors
    assert hosts(inventory.list("tags: {glm-fleet: [prod, d*]}\n"), "lambda") == ["late", "node-1"]
    assert "left out" not in inventory.errors
    assert "left out 2: " in inventory.run("ansible-inventory", "-i", str(inventory.file), "--list", "-vv").stdout


def test_constructed_works_on_top_and_strict_is_loud(inventory: Inventory) -> None:
    options = (
        "compose:\n  total_gib: lambda_accelerator_count * lambda_accelerator_memory_gib\n"
        "groups:\n  big: lambda_accelerator_count == 8\n"
        "keyed_groups:\n  - {key: \"lambda_tags['glm-fleet'] | default('none')\", prefix: fleet}\n"
    )
    listed = inventory.list(options)
    # ansible-core 2.18 composes text, later versions the number.
    assert int(variables(listed, "node-1")["total_gib"]) == 1440
    assert hosts(listed, "big") == ["late", "node-1"]
    assert hosts(listed, "fleet_none") == ["arm"]
    assert hosts(listed, "lambda_region_us_south_2") == ["arm"]
    assert "undefined" in inventory.refusal("strict: true\ncompose:\n  x: no_such_variable\n")
    extra = inventory.list("use_extra_vars: true\ncompose:\n  x: given | length\n", "-e", "given=yes")
    assert variables(extra, "node-1")["x"] in (3, "3")


# Keys.


def test_key_comes_from_either_variable_and_the_first_wins(inventory: Inventory) -> None:
    inventory.environment["LAMBDALABS_API_KEY"] = "wrong"
    assert hosts(inventory.list(), "lambda")
    del inventory.environment["LAMBDA_API_KEY"]
    inventory.environment["LAMBDALABS_API_KEY"] = KEY
    assert hosts(inventory.list(), "lambda")


def test_key_may_be_templated_given_as_extra_variable_or_read_from_a_file(inventory: Inventory) -> None:
    del inventory.environment["LAMBDA_API_KEY"]
    assert hosts(inventory.list("api_key: '{{ my_key }}'\n", "-e", f"my_key={KEY}"), "lambda")
    assert hosts(inventory.list("", "-e", f"lambda_api_key={KEY}"), "lambda")
    (inventory.folder / "key").touch(0o600)
    (inventory.folder / "key").write_text(f"api_key = {KEY}\n", encoding="utf-8")
    assert hosts(inventory.list(f"api_key_file: {inventory.folder}/key\n"), "lambda")


def test_key_and_fleet_may_be_in_group_vars_beside_the_file(inventory: Inventory) -> None:
    """As the modules take them; vaulted, too. What is given directly or as an extra variable stands above them."""
    del inventory.environment["LAMBDA_API_KEY"]
    (inventory.folder / "group_vars/all").mkdir(parents=True)
    (inventory.folder / "password").write_text("open sesame\n", encoding="utf-8")
    password = ("--vault-password-file", str(inventory.folder / "password"))
    sealed = inventory.run("ansible-vault", "encrypt_string", *password, KEY, "--name", "lambda_api_key").stdout
    file = inventory.folder / "group_vars/all/vault.yml"
    fleet = "glm_fleet_name: \"{{ 'other' if inventory_dir and inventory_file else 'default' }}\"\n"
    file.write_text(f"{sealed}\n{fleet}", encoding="utf-8")
    listed = inventory.list("", *password)
    assert (hosts(listed, "lambda"), hosts(listed, "glm_fleet")) == (["arm", "late", "node-1"], [])
    assert hosts(inventory.list("fleet: default\n", *password), "glm_fleet") == ["late", "node-1"]
    assert hosts(inventory.list("", *password, "-e", "glm_fleet_name=default"), "glm_fleet") == ["late", "node-1"]
    assert "no vault secrets found" in inventory.refusal()
    inventory.run("ansible-vault", "encrypt", *password, str(file))
    assert hosts(inventory.list("", *password), "lambda")
    assert "no API key" in (said := inventory.refusal()) and "The group_vars beside this file cannot be read" in said


def test_key_may_be_vaulted(inventory: Inventory) -> None:
    del inventory.environment["LAMBDA_API_KEY"]
    (inventory.folder / "password").write_text("open sesame\n", encoding="utf-8")
    password = ("--vault-password-file", str(inventory.folder / "password"))
    sealed = inventory.run("ansible-vault", "encrypt_string", *password, KEY, "--name", "api_key").stdout
    assert KEY not in sealed
    assert hosts(inventory.list(sealed, *password), "lambda")
    accounts = "accounts:\n  - name: one\n    " + sealed.replace("\n", "\n    ") + "\n"
    assert hosts(inventory.list(accounts, *password), "lambda_account_one")


def test_no_key_says_where_to_get_one(cloud: FakeCloud, inventory: Inventory) -> None:
    del inventory.environment["LAMBDA_API_KEY"]
    refusal = inventory.refusal()
    assert "no API key. Set the environment variable LAMBDA_API_KEY" in refusal
    assert "https://cloud.lambda.ai/api-keys" in refusal
    assert cloud.requests == []


def test_wrong_key_is_refused_and_not_shown(inventory: Inventory) -> None:
    inventory.environment["LAMBDA_API_KEY"] = "another-key-0123456789"
    refusal = inventory.refusal("stale_cache_on_error: true\n", "-vvvv")
    assert "the account: the key was refused" in refusal
    assert "another-key-0123456789" not in refusal


def test_accounts_stand_side_by_side(cloud: FakeCloud, inventory: Inventory) -> None:
    with serve() as other:
        other.key = "second_key_0123456789"
        other.instances = [make_instance(7, name="node-1")]
        inventory.environment["OTHER_KEY"] = other.key
        options = (
            f"accounts:\n  - {{name: one, api_key: '{KEY}'}}\n"
            f"  - {{name: two, api_key_env: OTHER_KEY, base_url: '{other.url}'}}\n"
        )
        listed = inventory.list(options)
        assert hosts(listed, "lambda_account_one") == ["arm", "late", "node-1_00000001"]
        assert hosts(listed, "lambda_account_two") == ["node-1_00000007"]
        assert variables(listed, "node-1_00000007")["lambda_account"] == "two"
        assert (len(cloud.requests), len(other.requests)) == (1, 1)
        other.handler = lambda _request: error(500, "global/internal-error")
        assert "account two: GET" in inventory.refusal(options)


# Trouble.


@pytest.mark.parametrize(
    ("answer", "text"),
    [
        (error(500, "global/internal-error"), "HTTP 500 global/internal-error"),
        (error(429, "global/too-many-requests"), "HTTP 429"),
        (Answer(200, b'{"data": [{"id": "1'), "not the API's JSON"),
        (Answer(200, b'{"data": []}' * 100, cut=True), "the connection broke|not the API's JSON"),
        (Answer(403, b"<html>error code: 1010</html>"), "something in front of the API"),
        (Answer(200, b'{"data": [{"id": "ok"}, {}]}'), "entry 1 of 2 has no usable id"),
        (Answer(200, b'{"data": [{"id": "-oProxyCommand=x", "status": "active"}]}'), "an instance id should be"),
    ],
    ids=["500", "429", "half", "cut", "403 page", "no id", "bad id"],
)
def test_trouble_fails_the_inventory_after_one_try(
    cloud: FakeCloud, inventory: Inventory, answer: Answer, text: str
) -> None:
    cloud.handler = lambda _request: answer
    refusal = inventory.refusal()
    assert any(part in refusal for part in text.split("|")), refusal
    assert len(cloud.requests) == 1, "core hands the file to the plugin twice; the second time must not ask again"


def test_a_relative_known_hosts_file_lies_beside_the_inventory(inventory: Inventory, tmp_path: Path) -> None:
    """The folder itself, also when the inventory is named by a link to it."""
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to("real")
    inventory.file = tmp_path / "link/test.lambda.yml"
    arguments = variables(inventory.list("known_hosts_file: ../keys/known_hosts\n"), "node-1")["ansible_ssh_extra_args"]
    assert f"UserKnownHostsFile={tmp_path}/keys/known_hosts " in arguments


def test_a_name_that_does_not_resolve_is_said_in_one_sentence(inventory: Inventory) -> None:
    inventory.environment["LAMBDA_API_URL"] = "https://cloud.lamda.invalid"
    inventory.write()
    options = inventory.file.read_text(encoding="utf-8").replace("retries: 0", "retries: 1")
    inventory.file.write_text(options, encoding="utf-8")
    assert inventory.run("ansible-inventory", "-i", str(inventory.file), "--list").returncode != 0
    text = inventory.errors
    assert "the name cloud.lamda.invalid cannot be resolved. Check the spelling of base_url" in text
    assert "HTTPSConnectionPool" not in text and "Errno" not in text
    # ansible itself prints the plugin's error twice: as a warning and as the cause of its own.
    assert text.count("cannot be resolved") <= 2


def test_500_then_200_is_fine(cloud: FakeCloud, inventory: Inventory) -> None:
    cloud.script = [error(500, "global/internal-error")]
    inventory.write()
    text = inventory.file.read_text(encoding="utf-8").replace("retries: 0", "retries: 1")
    inventory.file.write_text(text, encoding="utf-8")
    done = inventory.run("ansible-inventory", "-i", str(inventory.file), "--list")
    assert hosts(json.loads(done.stdout), "lambda") == ["arm", "late", "node-1"]


def test_last_good_answer_serves_when_allowed(cloud: FakeCloud, inventory: Inventory) -> None:
    options = f"stale_cache_on_error: true\nstale_cache_dir: {inventory.folder}/stale\n"
    cloud.handler = lambda _request: error(500, "global/internal-error")
    assert "There is no earlier answer to fall back to" in inventory.refusal(options)
    cloud.handler = cloud.answer
    fresh = inventory.list(options)
    kept = list((inventory.folder / "stale").iterdir())
    assert [file.stat().st_mode & 0o777 for file in kept] == [0o600]
    assert JUPYTER_TOKEN not in kept[0].read_text(encoding="utf-8") and KEY not in kept[0].name
    cloud.handler = lambda _request: error(500, "global/internal-error")
    assert inventory.list(options) == fresh
    assert "HTTP 500" in inventory.errors and "s ago (4 instances)" in inventory.errors
    (inventory.folder / "file").write_text("", encoding="utf-8")
    cloud.handler = cloud.answer
    assert inventory.list(f"stale_cache_on_error: true\nstale_cache_dir: {inventory.folder}/file/below\n") == fresh
    assert "this answer could not be cached" in inventory.errors
    cloud.handler = lambda _request: error(500, "global/internal-error")
    os.utime(kept[0], (time.time() - 500, time.time() - 500))
    assert "more than stale_cache_max_age (100 s)" in inventory.refusal(f"{options}stale_cache_max_age: 100\n")
    assert "HTTP 500" in inventory.refusal()


# Cache.

CACHE = "cache: true\ncache_plugin: ansible.builtin.jsonfile\ncache_timeout: 600\n"
GROUPS = "compose:\n  x: lambda_name ~ '!'\nkeyed_groups:\n  - {key: lambda_status, prefix: made}\n"


def test_a_cache_hit_equals_a_fresh_answer(cloud: FakeCloud, inventory: Inventory) -> None:
    folder = inventory.folder / "cache"
    options = f"{CACHE}cache_connection: {folder}\n{GROUPS}"
    fresh = inventory.list(options)
    assert inventory.list(options) == fresh
    assert len(cloud.requests) == 1
    assert hosts(fresh, "made_active") == ["arm", "node-1"]
    stored = "".join(file.read_text(encoding="utf-8") for file in folder.iterdir())
    assert "node-1" in stored
    assert JUPYTER_TOKEN not in stored and KEY not in stored and "jupyter" not in stored
    cloud.instances.pop()
    play = inventory.folder / "play.yml"
    play.write_text("- {hosts: lambda, gather_facts: false, tasks: []}\n", encoding="utf-8")
    flushed = inventory.run("ansible-playbook", "-i", str(inventory.file), str(play), "--list-hosts", "--flush-cache")
    assert "hosts (3)" in flushed.stdout
    assert len(cloud.requests) == 2
    inventory.list(options.replace("cache: true", "cache: false"))
    assert len(cloud.requests) == 3
    inventory.list(f"{options}hostnames: [id]\n")
    assert len(cloud.requests) == 3, "other options change the hosts, not what was asked"


def test_another_key_does_not_get_the_cached_answer(cloud: FakeCloud, inventory: Inventory) -> None:
    options = f"{CACHE}cache_connection: {inventory.folder}/cache\n"
    inventory.list(options)
    cloud.key = inventory.environment["LAMBDA_API_KEY"] = "second_key_0123456789"
    cloud.instances = []
    assert hosts(inventory.list(options), "lambda") == []


# Text from outside, and the tools.

PLAYBOOK = """
- hosts: lambda
  gather_facts: false
  tasks:
    - ansible.builtin.debug:
        msg: "name={{ lambda_name }} tag={{ lambda_tags.note }} host={{ inventory_hostname }}"
    - ansible.builtin.copy:
        content: "{{ hostvars[inventory_hostname] | to_json }}"
        dest: "{{ out }}"
        mode: "0600"
      delegate_to: localhost
      connection: local
"""


def test_template_text_in_names_and_tags_is_never_run(cloud: FakeCloud, inventory: Inventory) -> None:
    trap = "{{ lookup('ansible.builtin.pipe', 'touch " + str(inventory.folder / "owned") + "') }}"
    cloud.instances = [make_instance(1, name="{{ 7*7 }}", tags=[{"key": "note", "value": trap}])]
    inventory.write()
    (inventory.folder / "play.yml").write_text(PLAYBOOK, encoding="utf-8")
    done = inventory.run(
        "ansible-playbook", "-i", str(inventory.file), str(inventory.folder / "play.yml"),
        "-e", f"out={inventory.folder}/vars.json", "-e", f"ansible_python_interpreter={sys.executable}",
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    assert "name={{ 7*7 }} tag={{ lookup(" in done.stdout
    assert "host=7_7" in done.stdout
    assert not (inventory.folder / "owned").exists()
    written = json.loads((inventory.folder / "vars.json").read_text(encoding="utf-8"))
    assert written["lambda_name"] == "{{ 7*7 }}"
    assert written["lambda_tags"] == {"note": trap}
    assert JUPYTER_TOKEN not in json.dumps(written)


def test_dash_i_lambda_works_verbatim_from_the_checkout(cloud: FakeCloud, inventory: Inventory) -> None:
    done = inventory.run("ansible-inventory", "-i", "lambda", "--list")
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    assert hosts(json.loads(done.stdout), "glm_fleet") == ["late", "node-1"]
    assert JUPYTER_TOKEN not in done.stdout
    assert len(cloud.requests) == 1


@pytest.mark.parametrize("name", ["lambda.yml", "lambda.yaml", "a.lambda.yml", "a.lambda.yaml"])
def test_accepted_file_names(inventory: Inventory, name: str) -> None:
    inventory.file = inventory.folder / name
    assert hosts(inventory.list(), "lambda")


def test_other_file_names_are_declined_with_a_reason(inventory: Inventory) -> None:
    inventory.file = inventory.folder / "mylambda.yml"
    said = inventory.refusal("", "-vvv")
    assert "expected a file named lambda.yml, lambda.yaml, *.lambda.yml or *.lambda.yaml, found mylambda.yml" in said


def test_documentation_renders(inventory: Inventory) -> None:
    done = inventory.run("ansible-doc", "-t", "inventory", "glm.fleet.lambda_cloud")
    assert done.returncode == 0, done.stderr
    for text in ("known_hosts_file", "LAMBDALABS_API_KEY", "keyed_groups", "lambda_accelerator_count"):
        assert text in done.stdout


def test_the_first_command_of_an_empty_account_has_no_warning_of_ansible(
    cloud: FakeCloud, inventory: Inventory
) -> None:
    cloud.instances = []
    done = inventory.run("ansible-playbook", "deploy_glm51.yml", "-i", "lambda")
    assert done.returncode != 0
    assert "expected at least one host in 'glm_fleet', found none" in " ".join(done.stdout.replace("''", "'").split())
    assert "WARNING" not in done.stdout + done.stderr
