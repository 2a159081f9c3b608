"""Rehearsal hosts are real: systemd, ssh, cloud-init, Docker that pulls by published name, CDI devices, reboots.

The hosts are a rehearsal of their own beside any other: own state folder, own ports.
"""

from __future__ import annotations

import json
import os
import shlex
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from ansible_collections.glm.fleet.plugins.module_utils.cloud import host_keys, user_data
from simulator import registry
from simulator.hosts import adapted
from simulator.hosts.accelerators import declare
from simulator.hosts.backend import IMAGE, PodmanBackend
from simulator.hosts.images import ensure_image
from simulator.hosts.machines import Machines
from simulator.hosts.manual import ManualHost, create
from simulator.hosts.podman import Podman
from simulator.lambda_cloud.backend import AcceleratorSpec, CapacityError, FileSystemMount, InstanceTypeSpec, LaunchSpec
from simulator.services import Services
from simulator.settings import CHECKOUT, Settings
from simulator.support import RehearsalError, as_root, run
from tests.integration.logins import wait_for, wait_for_login
from tests.integration.oci import write_tiny_image
from tests.patience import PATIENCE_SECONDS

pytestmark = pytest.mark.podman

REFERENCE = "vllm/vllm-openai:v0.0.0-test"
TYPE = InstanceTypeSpec("gpu_8x_b200_sxm6", 8, AcceleratorSpec("B200", 8, 180), 208, 2900, 22000, "x86_64")
FIRST = "a" * 31 + "1"
SECOND = "a" * 31 + "2"
USER_DATA = "#cloud-config\nruncmd:\n  - [touch, /var/tmp/user-data-ran]\n"
# What cloud-init makes of documents, as type and content of the parts that it would act on.
TAKEN_APART = """
import json, sys
from cloudinit import helpers, user_data
seen = user_data.UserDataProcessor(helpers.Paths({"cloud_dir": "/var/tmp/cloud"}))
print(json.dumps([
    [[part.get_content_type(), part.get_payload(decode=True).decode()] for part in seen.process(document).walk()
     if not part.is_multipart()]
    for document in json.load(sys.stdin)
]))
"""


class Rehearsal:
    """A backend with two hosts, a registry and an ssh key."""

    def __init__(self, folder: Path) -> None:
        os.environ["GLM_REHEARSAL_DIR"] = str(folder)
        os.environ["GLM_REHEARSAL_REGISTRY_PORT"] = "5071"
        self.settings = Settings.from_environment()
        self.podman = Podman(self.settings)
        self.machines = Machines(self.settings, self.podman)
        self.services = Services(self.settings)
        self.key = folder / "id_ed25519"
        run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(self.key)])
        self.backend = PodmanBackend()
        # What a launch gives the first host beside its own user data.
        self.host_key = host_keys.make()

    def with_host_key(self, given: str) -> str:
        config = user_data.host_key_config(self.host_key.private, self.host_key.public)
        return user_data.combined(config, given)

    def spec(self, number: str, **changes: Any) -> LaunchSpec:
        public = self.key.with_suffix(".pub").read_text("utf-8").strip()
        values: dict[str, Any] = {
            "id": number,
            "name": f"node-{number[-1]}",
            "hostname": f"node-{number[-1]}",
            "region": "us-east-1",
            "instance_type": TYPE,
            "image_family": "gpu-base-24-04",
            "ssh_public_keys": [public],
            "user_data": USER_DATA,
        }
        return LaunchSpec(**{**values, **changes})

    def ssh(self, address: str, command: str) -> str:
        options = ("StrictHostKeyChecking=no", "UserKnownHostsFile=/dev/null", "LogLevel=ERROR", "BatchMode=yes")
        flags = [f"-o{option}" for option in options]
        return run(["ssh", "-i", str(self.key), *flags, f"ubuntu@{address}", command], timeout=PATIENCE_SECONDS)

    def await_ready(self, number: str) -> Any:
        """The backend's word for a host that is ready, and that lets its user in."""
        wait_for(f"{number} is ready", lambda: self.backend.poll(number).phase == "ready")
        wait_for_login(self.machines, number)
        return self.backend.poll(number)

    def await_boot(self, address: str) -> None:
        booted = "systemctl is-system-running || true"
        wait_for(f"{address} has booted", lambda: "running" in self.ssh(address, booted))


@pytest.fixture(scope="module")
def rehearsal(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Rehearsal]:
    before = dict(os.environ)
    made = Rehearsal(tmp_path_factory.mktemp("rehearsal"))
    try:
        tag = ensure_image(made.settings, made.podman, IMAGE)
        made.machines.open_gateway(tag)
        made.services.start(registry.service(made.settings))
        for number, given in ((FIRST, made.with_host_key(USER_DATA)), (SECOND, USER_DATA)):
            made.backend.launch(made.spec(number, user_data=given))
            # Known at once, before any list was read again.
            assert made.backend.poll(number).phase in ("booting", "ready")
        for number in (FIRST, SECOND):
            made.await_ready(number)
        yield made
    finally:
        made.services.stop("registry")
        made.machines.remove_all(["instance", "manual", "gateway"])
        os.environ.clear()
        os.environ.update(before)


def test_systemd_runs_everything_and_cloud_init_is_done_without_errors(rehearsal: Rehearsal) -> None:
    address = rehearsal.backend.poll(FIRST).ip
    status = rehearsal.ssh(address, "cloud-init status --wait --format=json")
    assert json.loads(status)["errors"] == []
    assert rehearsal.ssh(address, "systemctl is-system-running --wait").strip() == "running"
    assert rehearsal.ssh(address, "sudo id -un; hostname; ls /var/tmp/user-data-ran").split() == [
        "root",
        "node-1",
        "/var/tmp/user-data-ran",
    ]


def test_a_host_shows_the_key_of_its_user_data_and_no_other(rehearsal: Rehearsal) -> None:
    address = rehearsal.backend.poll(FIRST).ip
    shown = run(["ssh-keyscan", "-T", "10", address]).splitlines()
    assert [" ".join(line.split()[1:]) for line in shown if not line.startswith("#")] == [rehearsal.host_key.public]


def test_cloud_init_takes_every_form_of_user_data_beside_the_key_as_it_takes_it_alone(rehearsal: Rehearsal) -> None:
    parts = (
        'Content-Type: multipart/mixed; boundary="==X=="\nMIME-Version: 1.0\n\n--==X==\nContent-Type: '
        "text/x-shellscript\n\n#!/bin/sh\necho one\n\n--==X==\nContent-Type: text/cloud-config\n\nruncmd: [two]\n"
        "\n--==X==--\n"
    )
    forms = [
        "#!/bin/sh\necho hi\n", "#!/bin/sh\necho rødgrød ☃\n", "#!/bin/sh\r\necho hi\r\n", USER_DATA,
        "## template: jinja\n#cloud-config\nhostname: {{ v1.region }}\n", "#cloud-boothook\n#!/bin/sh\ntrue\n",
        "#cloud-config-archive\n- type: text/x-shellscript\n  content: |\n    #!/bin/sh\n- '#cloud-config\n\n  a: 1'\n",
        parts, f"From nobody Thu Jan  1 00:00:00 1970\n{parts}",
    ]  # fmt: skip
    documents = json.dumps([*forms, *map(rehearsal.with_host_key, forms)])
    address = rehearsal.backend.poll(FIRST).ip
    answer = rehearsal.ssh(address, f"sudo python3 -c {shlex.quote(TAKEN_APART)} <<'END'\n{documents}\nEND")
    taken = json.loads(answer)
    alone, beside = taken[: len(forms)], taken[len(forms) :]
    assert [part[0] for document in alone for part in document] == [
        "text/x-shellscript", "text/x-shellscript", "text/x-shellscript", "text/cloud-config", "text/jinja2",
        "text/cloud-boothook", "text/x-shellscript", "text/cloud-config",
        *["text/x-shellscript", "text/cloud-config"] * 2,
    ]  # fmt: skip
    for (first, *own), given in zip(beside, alone, strict=True):
        assert first[0] == "text/cloud-config" and rehearsal.host_key.public in first[1]
        assert own == given


def test_both_addresses_answer_and_hosts_have_own_host_keys(rehearsal: Rehearsal) -> None:
    first, second = rehearsal.backend.poll(FIRST), rehearsal.backend.poll(SECOND)
    assert rehearsal.ssh(first.private_ip, "hostname").strip() == "node-1"
    keys = {rehearsal.ssh(host.ip, "cat /etc/ssh/ssh_host_ed25519_key.pub").split()[1] for host in (first, second)}
    assert len(keys) == 2
    # The second host reaches the first over the private network, and has one default route.
    reach = f"timeout 60 bash -c '</dev/tcp/{first.private_ip}/22' && ip route show default | wc -l"
    assert rehearsal.ssh(second.ip, reach).strip() == "1"


def test_the_stand_in_tools_say_what_was_declared(rehearsal: Rehearsal) -> None:
    address = rehearsal.backend.poll(FIRST).ip
    query = "nvidia-smi --query-gpu=index,name,memory.total,driver_version --format=csv,noheader,nounits"
    rows = rehearsal.ssh(address, query).splitlines()
    assert rows == [f"{index}, NVIDIA B200, 183359, 580.105.08" for index in range(8)]
    xml = rehearsal.ssh(address, "nvidia-smi -q -x")
    assert xml.count("<state>Completed</state>") == 8
    assert "REHEARSAL STAND-IN" in rehearsal.ssh(address, "head -3 /usr/bin/nvidia-smi /usr/bin/nvidia-ctk")
    vendors = rehearsal.ssh(address, "cat /sys/bus/pci/devices/*/vendor").split()
    assert vendors == ["0x10de"] * 8
    # The stand-in PCI bus exists inside the host only.
    assert len(list(Path("/sys/bus/pci/devices").glob("0000:1[0-7]:00.0/vendor"))) != 8


def test_docker_pulls_by_published_name_and_cdi_brings_devices_and_engines(
    rehearsal: Rehearsal, tmp_path: Path
) -> None:
    digest = write_tiny_image(tmp_path / "image")
    assert registry.push(rehearsal.settings, tmp_path / "image", REFERENCE) == digest
    address = rehearsal.backend.poll(FIRST).ip
    daemon = {"features": {"cdi": True}, "registry-mirrors": [f"http://{rehearsal.settings.registry}"]}
    rehearsal.machines.execute(FIRST, "tee", "/etc/docker/daemon.json", stdin=json.dumps(daemon))
    rehearsal.ssh(address, "sudo systemctl restart docker")
    pulled = rehearsal.ssh(address, f"sudo docker pull -q {REFERENCE} && sudo docker image inspect {REFERENCE}")
    assert f"vllm/vllm-openai@{digest}" in pulled
    start = time.monotonic()
    # As the serving unit asks: limits beyond what a restricted machine allows must not stop the container.
    limits = "--ipc=host --ulimit memlock=-1 --ulimit stack=67108864"
    inside = "'ls /dev; nvidia-smi -L; ls -d /opt/glm-rehearsal/engines; cat /etc/glm-rehearsal/accelerator.json'"
    output = rehearsal.ssh(address, f"sudo docker run --rm {limits} --device nvidia.com/gpu=all {REFERENCE} {inside}")
    print(f"docker run with CDI: {time.monotonic() - start:.2f} s")
    lines = output.splitlines()
    assert [f"nvidia{index}" in lines for index in range(8)] == [True] * 8
    assert sum(line.startswith("GPU ") for line in lines) == 8
    assert "/opt/glm-rehearsal/engines" in lines
    one = rehearsal.ssh(address, f"sudo docker run --rm --device nvidia.com/gpu=3 {REFERENCE} 'nvidia-smi -L'")
    assert [line[:6] for line in one.splitlines()] == ["GPU 3:"]
    without = rehearsal.ssh(address, f"sudo docker run --rm {REFERENCE} 'ls /dev /opt 2>&1 || true'")
    assert "nvidia" not in without


def test_a_reboot_keeps_addresses_and_disks_and_brings_devices_back(rehearsal: Rehearsal) -> None:
    before = rehearsal.backend.poll(SECOND)
    key = rehearsal.ssh(before.ip, "echo kept > note; cat /etc/ssh/ssh_host_ed25519_key.pub")
    boot = rehearsal.ssh(before.ip, "systemctl show -p UserspaceTimestampMonotonic --value; uptime -s")
    # A new one would be unreachable for 40 s.
    hardware = rehearsal.ssh(before.ip, "cat /sys/class/net/eth[01]/address")
    rehearsal.backend.restart(SECOND)
    after = rehearsal.await_ready(SECOND)
    assert rehearsal.ssh(after.ip, "cat /sys/class/net/eth[01]/address") == hardware
    assert (after.ip, after.private_ip) == (before.ip, before.private_ip)
    assert rehearsal.ssh(after.ip, "cat /etc/ssh/ssh_host_ed25519_key.pub; ").strip() == key.strip()
    assert rehearsal.ssh(after.ip, "cat note").strip() == "kept"
    wait_for("docker", lambda: "active" in rehearsal.ssh(after.ip, "systemctl is-active docker; true").split())
    assert rehearsal.ssh(after.ip, "nvidia-smi -L | wc -l; ls /etc/cdi").split() == ["8", "nvidia.yaml"]
    assert boot != rehearsal.ssh(after.ip, "systemctl show -p UserspaceTimestampMonotonic --value; uptime -s")


def test_a_new_backend_finds_the_hosts_and_terminate_is_idempotent(rehearsal: Rehearsal, tmp_path: Path) -> None:
    third = "b" * 32
    data = FileSystemMount("fs1", "shared", "/lambda/nfs/shared")
    rehearsal.backend.launch(rehearsal.spec(third, file_systems=[data], user_data=None))
    state = rehearsal.await_ready(third)
    rehearsal.ssh(state.ip, "echo outlives the host > /lambda/nfs/shared/note")
    successor = PodmanBackend()
    wait_for("the new backend to find the host", lambda: successor.poll(third).phase == "ready")
    successor.terminate(third)
    successor.terminate(third)
    assert successor.poll(third).phase == "failed"
    assert (rehearsal.settings.state_dir / "file-systems/fs1/note").read_text() == "outlives the host\n"
    volumes = rehearsal.podman.run("volume", "ls", "--quiet")
    assert third not in volumes
    assert not (rehearsal.settings.state_dir / "hosts" / third).exists()


def test_a_full_pool_is_a_capacity_error_and_leaves_nothing(rehearsal: Rehearsal) -> None:
    full = PodmanBackend(capacity=2)
    with pytest.raises(CapacityError, match="capacity"):
        full.launch(rehearsal.spec("c" * 32))
    assert full.poll("c" * 32).phase == "failed"


def test_a_launch_that_podman_refuses_leaves_nothing(rehearsal: Rehearsal) -> None:
    nowhere = FileSystemMount("fs2", "shared", "not/absolute")
    with pytest.raises(RehearsalError, match=r"podman.* run .*not/absolute"):
        rehearsal.backend.launch(rehearsal.spec("d" * 32, file_systems=[nowhere]))
    assert rehearsal.podman.containers(f"name={'d' * 32}") == []
    assert not (rehearsal.settings.state_dir / "hosts" / ("d" * 32)).exists()


@pytest.mark.parametrize("image", ["bare-trixie", "bare-bookworm"])
def test_the_command_line_makes_and_removes_hosts_for_role_tests(rehearsal: Rehearsal, image: str) -> None:
    key = str(rehearsal.key.with_suffix(".pub"))
    command = [sys.executable, "-m", "simulator", "hosts"]
    made = run([*command, "create", "--image", image, "--name", image, "--ssh-key", key], timeout=600)
    host = json.loads(made)
    assert set(host) == {"name", "ip", "private_ip"}
    assert rehearsal.ssh(host["ip"], "sudo id -un").strip() == "root"
    suite = rehearsal.ssh(host["ip"], ". /etc/os-release; echo $VERSION_CODENAME").strip()
    assert image == f"bare-{suite}"
    rehearsal.await_boot(host["ip"])
    again = subprocess.run(
        [*command, "create", "--image", image, "--name", image, "--ssh-key", key],
        capture_output=True,
        text=True,
        check=False,
        cwd=CHECKOUT,
    )
    assert again.returncode == 1 and "exists already" in again.stderr
    run([*command, "destroy", image])
    assert rehearsal.machines.find(image) is None
    run([*command, "destroy", image])


def stand_in(folder: Path, podman: Podman, reference: str) -> None:
    """An image as registries have them: apt but no systemd, daemons kept from being started, a user in the way."""
    root = folder / "root.tar"
    policy = folder / "policy-rc.d"
    policy.write_text("#!/bin/sh\nexit 101\n")
    policy.chmod(0o755)
    hooks = (f"copy-in {policy} /usr/sbin", 'chroot "$1" useradd --create-home --shell /bin/false ubuntu')
    options = ("--variant=apt", "--include=passwd", *(f"--customize-hook={hook}" for hook in hooks))
    run([*as_root(), "mmdebstrap", *options, "trixie", str(root)], timeout=300)
    podman.run("import", '--change=ENTRYPOINT ["/bin/false"]', str(root), reference)


def test_a_bare_host_is_made_of_an_image_of_somebody_else(rehearsal: Rehearsal, tmp_path: Path) -> None:
    reference = "glm-rehearsal-test/somebody:1"
    key = rehearsal.key.with_suffix(".pub").read_text("utf-8")
    stand_in(tmp_path, rehearsal.podman, reference)
    tag = ""
    try:
        tag = adapted.ensure_adapted_image(rehearsal.settings, rehearsal.podman, reference)
        hosts = [create(rehearsal.settings, ManualHost(name, reference, key)) for name in ("other-1", "other-2")]
        rehearsal.await_boot(hosts[0]["ip"])
        assert rehearsal.ssh(hosts[0]["ip"], "sudo id -un; echo ~; ls /usr/sbin/policy-rc.d || true").split() == [
            "root",
            "/home/ubuntu",
        ]
        own = "cat /etc/machine-id /etc/ssh/ssh_host_ed25519_key.pub"
        first, second = (rehearsal.ssh(host["ip"], own).split() for host in hosts)
        assert first[0] != second[0] and first[2] != second[2]
        assert adapted.ensure_adapted_image(rehearsal.settings, rehearsal.podman, reference) == tag
    finally:
        for name in ("other-1", "other-2"):
            rehearsal.machines.destroy(name)
        rehearsal.podman.run("rmi", "--force", reference, *([tag] if tag else []))


def test_an_unbuilt_image_says_what_to_run(rehearsal: Rehearsal, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("simulator.hosts.images._FORMAT", -1)
    with pytest.raises(RehearsalError, match="python -m simulator build"):
        rehearsal.backend.launch(rehearsal.spec("e" * 32))


def test_an_odd_accelerator_is_declared_by_its_advertised_memory() -> None:
    assert declare("B300", 8, 288).memory_mib == int(288e9 / 2**20)
