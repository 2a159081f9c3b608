"""Images that lack a package: derived on real hosts with a real Docker, from a real index through pip, once per fleet.

The base is the host's own system with pip, an old transformers and an engine with nothing in it; the newer ones are
wheels of this file. The tests build on one another.
"""

from __future__ import annotations

import base64
import dataclasses
import hashlib
import io
import json
import os
import re
import subprocess
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pip
import pytest
import yaml

from simulator import registry
from simulator.hosts import images
from simulator.hosts.accelerators import declare
from simulator.hosts.machines import HostRequest, Machines, Mount
from simulator.services import Services
from simulator.settings import Settings
from tests.integration.logins import wait_for_login, wait_for_port
from tests.patience import PATIENCE_SECONDS

pytestmark = pytest.mark.podman

ROOT = Path(__file__).parents[2]
HOSTS = ("gpu-1", "gpu-2")
BASE = "vllm/vllm-openai:v0.16.0"
KEY = f"{BASE} + transformers==5.4.0"
INDEX_PORT = 8765
PLAYBOOK = """
- hosts: gpu
  gather_facts: false
  become: true
  roles:
    - role: glm.fleet.plan
    - role: glm.fleet.engine_image
  tasks:
    - name: Plan again with the locked versions
      ansible.builtin.include_role:
        name: glm.fleet.plan
    - name: Show what would be served
      ansible.builtin.debug:
        msg: "served from {{ ansible_facts['glm_plans'][0]['image']['reference'] }}"
"""


def wheel(name: str, version: str, files: dict[str, str], requires: tuple[str, ...] = ()) -> tuple[str, bytes]:
    """Name and bytes of a wheel with these files."""
    info = f"{name}-{version}.dist-info"
    needs = "".join(f"Requires-Dist: {line}\n" for line in requires)
    everything = {
        **files,
        f"{info}/METADATA": f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n{needs}",
        f"{info}/WHEEL": "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    }
    record = [
        f"{path},sha256={base64.urlsafe_b64encode(hashlib.sha256(text.encode()).digest()).rstrip(b'=').decode()},"
        f"{len(text)}"
        for path, text in everything.items()
    ]
    everything[f"{info}/RECORD"] = "\n".join([*record, f"{info}/RECORD,,", ""])
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w") as archive:
        for path, text in everything.items():
            archive.writestr(zipfile.ZipInfo(path, (2026, 1, 1, 0, 0, 0)), text)
    return f"{name}-{version}-py3-none-any.whl", content.getvalue()


def transformers(version: str, knows: str, requires: tuple[str, ...] = ()) -> tuple[str, bytes]:
    names = f"CONFIG_MAPPING_NAMES = {{{knows!r}: 'Config'}}\n"
    auto = "transformers/models/auto"
    files = {f"{folder}/__init__.py": "" for folder in ("transformers/models", auto)}
    files["transformers/__init__.py"] = f"import huggingface_hub\n__version__ = {version!r}\n"
    files[f"{auto}/configuration_auto.py"] = names
    return wheel("transformers", version, files, requires)


def write_index(folder: Path) -> None:
    """A package index (PEP 503) of the two wheels that the image lacks."""
    made = [
        transformers("5.4.0", "glm_moe_dsa", ("huggingface_hub>=1.0",)),
        wheel("huggingface_hub", "1.2.0", {"huggingface_hub/__init__.py": ""}),
    ]
    for name, content in made:
        project = folder / "simple" / name.partition("-")[0].replace("_", "-")
        project.mkdir(parents=True)
        (project / name).write_bytes(content)
        link = f"{name}#sha256={hashlib.sha256(content).hexdigest()}"
        (project / "index.html").write_text(f'<!DOCTYPE html><a href="{link}">{name}</a>', encoding="utf-8")


@dataclasses.dataclass
class Fleet:
    """Two hosts with Docker, a registry, an index on each host's loopback."""

    machines: Machines
    folder: Path
    registry: str

    def on(self, host: str, *argv: str, stdin: str | None = None) -> str:
        return self.machines.execute(host, *argv, stdin=stdin)

    def serve_index(self, host: str) -> None:
        serve = ("python3", "-m", "http.server", "--bind", "127.0.0.1", "--directory", "/srv/index", str(INDEX_PORT))
        self.on(host, "systemd-run", "--quiet", "--unit=index", *serve)
        wait_for_port(self.machines, host, INDEX_PORT)

    def deploy(self, *arguments: str, lock: str = "glm.lock.yml", **variables: Any) -> str:
        given = {"glm_lock_file": str(self.folder / lock), **variables}
        command = ["ansible-playbook", "-i", str(self.folder / "hosts.yml"), str(self.folder / "image.yml")]
        done = subprocess.run(
            [*command, "-e", json.dumps(given), *arguments],
            cwd=ROOT, capture_output=True, text=True, timeout=PATIENCE_SECONDS, check=False,
            env={**os.environ, "ANSIBLE_NOCOLOR": "1", "ANSIBLE_INJECT_FACT_VARS": "false"},
        )  # fmt: skip
        print(done.stdout, done.stderr)
        # YAML wraps long messages.
        return done.stdout + "\n" + " ".join(done.stdout.split()) + done.stderr

    def lock(self, name: str = "glm.lock.yml") -> dict[str, Any]:
        data: dict[str, Any] = yaml.safe_load((self.folder / name).read_text(encoding="utf-8"))
        return data


def build_base(fleet: Fleet) -> None:
    """The host's system (its Python forbids installing into it) with pip, an old transformers and an empty engine."""
    version = fleet.on("gpu-1", "python3", "-c", "import sys; print('%d.%d' % sys.version_info[:2])").strip()
    site = f"/tmp/base/usr/local/lib/python{version}/dist-packages"
    fleet.on("gpu-1", "mkdir", "-p", site)
    fleet.on("gpu-1", "cp", "-r", "/srv/pip/pip", site)
    old = (
        transformers("4.57.6", "llama"),
        wheel("huggingface_hub", "0.36.0", {"huggingface_hub/__init__.py": ""}),
        wheel(
            "vllm", "0.16.0", {f"vllm/{name}.py": "" for name in ("__init__", "engine/__init__", "engine/arg_utils")}
        ),
    )
    extract = "import base64, io, sys, zipfile; data = base64.b64decode(sys.stdin.read()); "
    extract += f"zipfile.ZipFile(io.BytesIO(data)).extractall({site!r})"
    for _name, content in old:
        fleet.on("gpu-1", "python3", "-c", extract, stdin=base64.b64encode(content).decode())
    system = "usr/bin usr/lib/python3* usr/lib/*-linux-gnu usr/lib64 bin lib lib64"
    pack = f"mkdir -p /tmp/base/tmp && tar -c -C / {system} -C /tmp/base usr/local tmp | docker import - base"
    fleet.on("gpu-1", "sh", "-c", f"cd / && {pack}")
    name = f"{fleet.registry}/{BASE}"
    fleet.on("gpu-1", "sh", "-c", f"docker tag base {name} && docker push -q {name} && docker rmi base {name}")


@pytest.fixture(scope="module")
def fleet(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fleet]:
    folder = tmp_path_factory.mktemp("build")
    settings = Settings.from_environment().with_state_dir(folder / "rehearsal")
    machines = Machines(settings)
    services = Services(settings)
    image = images.ensure_image(settings, machines.podman, "gpu-base")
    key = folder / "key"
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(key)], check=True)
    public = key.with_suffix(".pub").read_text(encoding="utf-8").strip()
    write_index(folder / "index")
    made = Fleet(machines, folder, settings.registry)
    mounts = [
        Mount(Path(pip.__file__).parents[1], "/srv/pip", read_only=True),
        Mount(folder / "index", "/srv/index", read_only=True),
    ]
    try:
        entries = {}
        for host in HOSTS:
            data = {"instance-id": host, "local-hostname": host, "public-keys": [public]}
            seed = {"meta-data": json.dumps(data), "user-data": "#cloud-config\n{}\n"}
            board = declare("B200", 8, 192)
            request = HostRequest(host, image, host, "manual", seed, board, docker=True, mounts=mounts)
            options = f"-i {key} -o StrictHostKeyChecking=no -o UserKnownHostsFile=/dev/null"
            entries[host] = {
                "ansible_host": machines.create(request).ip,
                "ansible_user": "ubuntu",
                "ansible_ssh_common_args": options,
            }
        # A registry of its own: what it holds is no engine.
        services.start(registry.service(dataclasses.replace(settings, cache_dir=folder)))
        daemon = {
            "features": {"cdi": True},
            "registry-mirrors": [f"http://{settings.registry}"],
            "insecure-registries": [settings.registry],
        }
        for host in HOSTS:
            wait_for_login(machines, host, "docker info >/dev/null")
            made.on(host, "tee", "/etc/docker/daemon.json", stdin=json.dumps(daemon))
            made.on(host, "systemctl", "restart", "docker")
            made.serve_index(host)
        build_base(made)
        variables = {
            "glm_model": "GLM-5",
            "glm_accelerator": "B200",
            "glm_accelerator_count": 8,
            "glm_engine_version": "0.16.0",
            "engine_image_index_url": f"http://127.0.0.1:{INDEX_PORT}/simple",
            "docker_registry_mirrors": [f"http://{settings.registry}"],
        }
        inventory = {"all": {"vars": variables, "children": {"gpu": {"hosts": entries}}}}
        (folder / "hosts.yml").write_text(json.dumps(inventory), encoding="utf-8")
        (folder / "image.yml").write_text(PLAYBOOK, encoding="utf-8")
        yield made
    finally:
        machines.remove_all(["manual"])
        services.stop("registry")


def recap(text: str) -> dict[str, dict[str, int]]:
    rows = re.findall(r"^(gpu-\d) +: (.*)$", text, re.MULTILINE)
    return {host: {k: int(v) for k, v in re.findall(r"(\w+)=(\d+)", row)} for host, row in rows}


def served(text: str) -> list[str]:
    return re.findall(r"msg: ['\"]?served from ([^'\"\s]+)", text[: text.index("PLAY RECAP")])


def test_check_mode_builds_and_writes_nothing(fleet: Fleet) -> None:
    text = fleet.deploy("--check")
    assert all(row["failed"] == 0 and row["changed"] for row in recap(text).values()), text
    assert not (fleet.folder / "glm.lock.yml").exists()
    assert fleet.on("gpu-1", "docker", "images", "-q") == ""


def test_each_host_builds_one_image_from_one_locked_list(fleet: Fleet) -> None:
    text = fleet.deploy()
    assert [row["failed"] for row in recap(text).values()] == [0, 0], text
    assert len(re.findall(r"^gpu-\d: image: resolving transformers==5.4.0 once for the fleet", text, re.M)) == 1
    entry = fleet.lock()["builds"][KEY]
    names = [line.split(" --hash=sha256:")[0] for line in entry["requirements"]["x86_64"]]
    assert names == ["huggingface_hub==1.2.0", "transformers==5.4.0"]
    assert re.fullmatch(r"glm-fleet/vllm-openai:v0\.16\.0-[0-9a-f]{12}", entry["image"])
    assert served(text) == [entry["image"]] * 2
    assert entry["base"] == fleet.lock()["images"][BASE]["digest"]
    look = "import os, transformers; print(transformers.__version__, os.listdir('/opt/glm-fleet'))"
    for host in HOSTS:
        said = fleet.on(host, "docker", "run", "--rm", "--entrypoint", "python3", entry["image"], "-c", look)
        assert said.strip() == "5.4.0 ['requirements.txt']"
        assert not fleet.on(host, "sh", "-c", "ls /var/lib/glm/build"), "the build context is gone"


def test_a_second_run_changes_nothing_and_asks_no_index(fleet: Fleet) -> None:
    for host in HOSTS:
        fleet.on(host, "systemctl", "stop", "index")
    for mode in ([], ["--check"]):
        text = fleet.deploy(*mode)
        assert [(row["failed"], row["changed"]) for row in recap(text).values()] == [(0, 0)] * 2, text
    assert served(text) == [fleet.lock()["builds"][KEY]["image"]] * 2


def test_an_index_that_cannot_be_reached_is_named(fleet: Fleet) -> None:
    text = fleet.deploy("--limit", "gpu-1", lock="other.yml")
    assert recap(text)["gpu-1"]["failed"] == 1
    assert re.search(r"gpu-1, image: expected pip in vllm/vllm-openai@sha256:\w+ to resolve transformers==5\.4", text)
    assert "engine_image_index_url" in text


def test_a_wheel_that_is_not_the_locked_one_is_refused(fleet: Fleet) -> None:
    for host in HOSTS:
        fleet.serve_index(host)
    lock = fleet.lock()
    lock["builds"][KEY]["requirements"]["x86_64"][1] = f"transformers==5.4.0 --hash=sha256:{'0' * 64}"
    lock["builds"][KEY]["image"] = "glm-fleet/vllm-openai:v0.16.0-000000000000"
    (fleet.folder / "forged.yml").write_text(yaml.safe_dump(lock), encoding="utf-8")
    text = fleet.deploy("--limit", "gpu-1", lock="forged.yml")
    assert recap(text)["gpu-1"]["failed"] == 1
    assert "THESE PACKAGES DO NOT MATCH THE HASHES" in text


def test_with_a_registry_one_host_builds_and_pushes_and_the_other_pulls(fleet: Fleet) -> None:
    where = f"{fleet.registry}/team"
    text = fleet.deploy(lock="pushed.yml", glm_image_registry=where)
    assert [row["failed"] for row in recap(text).values()] == [0, 0], text
    assert len(re.findall(r"^gpu-\d: image: push of", text, re.M)) == 1
    entry = fleet.lock("pushed.yml")["builds"][KEY]
    reference = f"{where}/glm-fleet/vllm-openai@{entry['digest']}"
    assert served(text) == [reference] * 2
    digests = {fleet.on(host, "docker", "inspect", "--format={{.Id}}", reference) for host in HOSTS}
    assert len(digests) == 1, "one image on both hosts"
    again = fleet.deploy(lock="pushed.yml", glm_image_registry=where)
    assert [(row["failed"], row["changed"]) for row in recap(again).values()] == [(0, 0)] * 2, again
