"""The parts of the rehearsal that need no host: settings, detection, services, the registry's checks, messages."""

from __future__ import annotations

import dataclasses
import json
import os
import resource
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest
import yaml

from simulator import cli, registry, support, world
from simulator.hosts import adapted, images
from simulator.hosts.accelerators import declare
from simulator.hosts.machines import KIND_LABEL, NAME_LABEL, NUMBER_LABEL, Machines
from simulator.hosts.manual import ManualHost, create
from simulator.hosts.podman import Machine, Podman, containers_conf, running_monitor, storage_conf
from simulator.services import Services
from simulator.settings import LAST_WORLD, Settings
from simulator.support import RehearsalError, locked, run, run_logged, step, write_atomically

ROOT = Path(__file__).parents[3]
PURE = "cgroup2 /sys/fs/cgroup cgroup2 rw 0 0\n"
MIXED = (
    "tmpfs /sys/fs/cgroup tmpfs rw 0 0\n"
    "cgroup /sys/fs/cgroup/cpu cgroup rw,cpu 0 0\n"
    "cgroup2 /sys/fs/cgroup/unified cgroup2 rw 0 0\n"
)


def settings(folder: Path, **environ: str) -> Settings:
    places = {"GLM_REHEARSAL_DIR": str(folder / "state"), "GLM_CACHE_DIR": str(folder / "cache")}
    return Settings.from_environment({**places, **environ})


def machine(folder: Path, mounts: str, bounding: str, systemd: bool) -> Machine:
    process = folder / "proc/self"
    process.mkdir(parents=True)
    (process / "mounts").write_text("proc /proc proc rw 0 0\n" + mounts)
    (process / "status").write_text(f"Name:\tx\nCapBnd:\t{bounding}\n")
    if systemd:
        (folder / "run/systemd/system").mkdir(parents=True)
    return Machine.detect(folder)


def test_settings_have_defaults_and_follow_the_environment(tmp_path: Path) -> None:
    plain = settings(tmp_path)
    assert (plain.gateway, plain.registry, plain.api_url) == ("10.89.10.1", "10.89.10.1:5001", "http://127.0.0.1:8430")
    moved = settings(tmp_path, GLM_REHEARSAL_PUBLIC_SUBNET="10.1.2.0/24", GLM_REHEARSAL_HUB_PORT="9000")
    assert moved.hub_url == "http://10.1.2.1:9000"
    assert plain.owner != plain.with_state_dir(tmp_path / "other").owner
    assert settings(tmp_path, GLM_REHEARSAL_MOUNTS=" /a:/b\n  /c:/d:ro").mounts == ("/a:/b", "/c:/d:ro")
    assert plain.mounts == ()


def test_worlds_share_nothing_but_what_is_expensive_to_build() -> None:
    worlds = [Settings.from_environment({"GLM_REHEARSAL_WORLD": str(number)}) for number in range(LAST_WORLD + 1)]
    assert {each.cache_dir for each in worlds} == {worlds[0].cache_dir}
    subnets = [subnet for each in worlds for subnet in each.networks.values()]
    places = [(each.state_dir, each.owner, *each.networks, each.api_port, each.hub_url) for each in worlds]
    for row in (subnets, *zip(*places, strict=True), [each.registry for each in worlds]):
        assert len(set(row)) == len(row)
    assert worlds[0].state_dir.name == ".rehearsal" and worlds[3].state_dir.parts[-2:] == (".rehearsal", "world-3")


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("GLM_REHEARSAL_API_PORT", "80"),
        ("GLM_REHEARSAL_API_PORT", "http"),
        ("GLM_REHEARSAL_WORLD", "100"),
        ("GLM_REHEARSAL_WORLD", "one"),
        ("GLM_REHEARSAL_PUBLIC_SUBNET", "10.0.0.1/24"),
        ("GLM_REHEARSAL_PRIVATE_SUBNET", "10.0.0.0/30"),
    ],
)
def test_a_setting_that_cannot_be_used_is_named(tmp_path: Path, name: str, value: str) -> None:
    with pytest.raises(ValueError, match=name):
        settings(tmp_path, **{name: value})


def test_an_ordinary_machine_needs_no_configuration(tmp_path: Path) -> None:
    ordinary = machine(tmp_path, PURE, "000001ffffffffff", systemd=True)
    assert ordinary == Machine(unified_cgroup=True, can_raise_limits=True, systemd=True)
    assert containers_conf(ordinary) is None


def test_a_restricted_machine_gets_runc_lower_limits_and_no_systemd(tmp_path: Path) -> None:
    restricted = machine(tmp_path, MIXED, "000001fffeffffff", systemd=False)
    assert restricted == Machine(unified_cgroup=False, can_raise_limits=False, systemd=False)
    hard = {resource.RLIMIT_NOFILE: 4096, resource.RLIMIT_NPROC: resource.RLIM_INFINITY}
    text = containers_conf(restricted, lambda number: (0, hard[number])) or ""
    assert 'default_ulimits = ["nofile=4096:4096", "nproc=32768:32768"]' in text
    assert 'runtime = "runc"' in text and 'cgroup_manager = "cgroupfs"' in text


def test_a_machine_without_systemd_keeps_its_runtime(tmp_path: Path) -> None:
    text = containers_conf(machine(tmp_path, PURE, "000001ffffffffff", systemd=False)) or ""
    assert "cgroupfs" in text and "runc" not in text and "ulimits" not in text


def test_a_store_of_ones_own_keeps_all_that_podman_writes_and_reads_images_of_the_machine(tmp_path: Path) -> None:
    ordinary = machine(tmp_path, PURE, "000001ffffffffff", systemd=True)
    text = containers_conf(ordinary, store=tmp_path / "own") or ""
    kept = {key: value.strip('"') for key, _, value in (line.partition(" = ") for line in text.splitlines()) if value}
    assert kept["lock_type"] == "file"
    assert all(kept[name].startswith(f"{tmp_path}/own/") for name in ("static_dir", "volume_path"))
    assert f'graphroot = "{tmp_path}/own/graph"' in storage_conf(tmp_path / "own")
    assert 'additionalimagestores = ["/var/lib/containers/storage"]' in storage_conf(tmp_path / "own")


def test_monitors_of_containers_in_another_store_are_somebody_elses(tmp_path: Path) -> None:
    own = Podman(dataclasses.replace(settings(tmp_path), podman_store=tmp_path / "p"))
    graphs = {"10": "/var/lib/containers/storage", "11": f"{own.store}/graph", "12": "/x/glm-rehearsal-store/graph"}
    for pid, graph in graphs.items():
        argv = ("/usr/bin/conmon", "-b", f"{graph}/overlay-containers/id", "-n", "glm-rehearsal-a", "")
        (tmp_path / "proc" / pid).mkdir(parents=True)
        (tmp_path / "proc" / pid / "cmdline").write_bytes("\0".join(argv).encode())
    proc = tmp_path / "proc"
    assert running_monitor(name="glm-rehearsal-", proc=proc) == 10
    assert running_monitor(name="glm-rehearsal-", store=own.store, proc=proc) == 11
    assert running_monitor(name="other-", store=own.store, proc=proc) is None


def test_an_edited_recipe_is_another_image_and_an_unchanged_one_is_not() -> None:
    recipe = images.find_recipe("gpu-base")
    tag = images.image_tag(recipe)
    assert tag == images.image_tag(images.find_recipe("gpu-base"))
    changed = images.Recipe(recipe.name, recipe.suite, (*recipe.packages, "vim"), recipe.overlays)
    assert images.image_tag(changed) != tag
    with pytest.raises(RehearsalError, match="bare-bookworm, bare-trixie, gpu-base"):
        images.find_recipe("gpu-bass")


@pytest.mark.parametrize(
    ("name", "reference"),
    [
        ("ubuntu:24.04", True),
        ("mirror.example.com:5000/library/ubuntu:24.04", True),
        ("ubuntu@sha256:" + "0" * 64, True),
        ("bare-trixie", False),
        ("ubuntu", False),
        ("--privileged:1", False),
    ],
)
def test_an_image_with_its_tag_is_told_from_a_recipe(name: str, reference: bool) -> None:
    assert adapted.is_reference(name) is reference


def test_an_image_of_somebody_else_gets_what_our_bare_hosts_have() -> None:
    reference = "mirror.example.com:5000/ubuntu:24.04"
    recipe = adapted.adapted_recipe(reference)
    assert (recipe.name, recipe.suite) == ("mirror-example-com-5000-ubuntu-24-04", reference)
    ours = images.find_recipe("bare-trixie")
    assert (recipe.packages, recipe.overlays, recipe.masked_units) == (ours.packages, ours.overlays, ours.masked_units)
    arguments = adapted.run_arguments(recipe, "build", "/overlay.tar")
    assert arguments[arguments.index(recipe.suite) + 1 :][:2] == ["/bin/sh", "-ec"]
    assert "--volume=/overlay.tar:/run/glm-rehearsal-overlay.tar:ro" in arguments
    script = adapted.adapting_script(recipe).splitlines()
    [install] = [line for line in script if line.startswith("apt-get install")]
    assert {"systemd-sysv", "openssh-server", "python3", "python3-apt", "sudo", "iproute2"} <= set(install.split())
    # The image's own user of that name makes way, and no key or id is shared by hosts.
    assert script.index(next(line for line in script if "userdel" in line)) < script.index(recipe.commands[0])
    assert script[-2:] == ["rm -f /etc/ssh/ssh_host_* /var/lib/dbus/machine-id", ": > /etc/machine-id"]


class Store:
    """podman with the images ``there``; answers what this test asks and keeps what was asked."""

    def __init__(self, *there: str, registry: bool = True) -> None:
        self.there = {*there}
        self.registry = registry
        self.asked: list[tuple[str, ...]] = []

    def run(self, *argv: str, timeout: float | None = None) -> str:
        self.asked.append(argv)
        verb, last = argv[0], argv[-1]
        if verb == "image":
            if last not in self.there:
                raise RehearsalError("no such image")
            return f"id-of-{last}\n"
        if verb == "pull":
            if not self.registry:
                raise RehearsalError("no route to the registry")
            self.there.add(last)
        if verb == "commit":
            self.there.add(last)
        if verb == "images":
            return "\n".join(name for name in self.there if last == f"reference={name}")
        return ""

    def verbs(self) -> list[str]:
        return [argv[0] for argv in self.asked if argv[0] in ("pull", "run", "commit")]


def test_an_image_is_pulled_and_adapted_once(tmp_path: Path) -> None:
    store = Store()
    tag = adapted.ensure_adapted_image(settings(tmp_path), store, "ubuntu:24.04")  # type: ignore[arg-type]
    assert tag.startswith("localhost/glm-rehearsal/ubuntu-24-04:")
    assert store.verbs() == ["pull", "run", "commit"] and store.asked[-1][0] == "rm"
    store.asked.clear()
    assert adapted.ensure_adapted_image(settings(tmp_path), store, "ubuntu:24.04") == tag  # type: ignore[arg-type]
    assert store.verbs() == []


def test_an_image_of_the_local_store_is_not_pulled_and_a_missing_one_is_explained(tmp_path: Path) -> None:
    store = Store("ubuntu:24.04", registry=False)
    adapted.ensure_adapted_image(settings(tmp_path), store, "ubuntu:24.04")  # type: ignore[arg-type]
    assert store.verbs() == ["run", "commit"]
    with pytest.raises(RehearsalError, match=r"no route to the registry\nNext: .*pull it with podman first"):
        adapted.ensure_adapted_image(settings(tmp_path), store, "ubuntu:26.04")  # type: ignore[arg-type]


def test_the_command_line_refuses_an_image_that_is_neither_recipe_nor_reference(
    capsys: pytest.CaptureFixture[str],
) -> None:
    with pytest.raises(SystemExit):
        cli.main(["hosts", "create", "--image", "ubuntu", "--name", "a", "--ssh-key", "key.pub"])
    assert "expected one of bare-bookworm, bare-trixie, gpu-base, or an image" in capsys.readouterr().err


def test_the_bare_hosts_of_every_scenario_can_be_of_another_image() -> None:
    """All but the one that is there for Debian 12's own Docker."""
    files = sorted((Path(__file__).parents[3] / "molecule").glob("*/molecule.yml"))
    platforms = [platform for path in files for platform in yaml.safe_load(path.read_text("utf-8"))["platforms"]]
    fixed = {row["name"] for row in platforms if not row["image"].startswith("${GLM_MOLECULE_IMAGE:-bare-")}
    assert fixed == {"docker-bookworm", "docker-provider", "nvidia-provider"}


def test_declarations_know_real_products_and_fall_back_to_the_advertised_memory() -> None:
    assert declare("B200", 8, 180).memory_mib == 183359
    assert declare("H200", 8, 141).name == "NVIDIA H200"
    assert declare("B300", 8, 288).memory_mib == int(288e9 / 2**20)
    # The A100 of 40 GB is not the product of 80 GB in the table.
    assert declare("A100", 8, 40).memory_mib == int(40e9 / 2**20)


def test_a_process_that_took_over_the_number_is_left_alone(tmp_path: Path) -> None:
    services = Services(settings(tmp_path))
    record = {"pid": os.getpid(), "ticks": 1, "argv": []}
    write_atomically(tmp_path / "state/run/web.json", json.dumps(record))
    assert services.running("web") is None
    assert services.stop("web") is False


def test_a_layout_must_hold_one_image(tmp_path: Path) -> None:
    with pytest.raises(RehearsalError, match="not an OCI image layout"):
        registry.layout_digest(tmp_path)
    (tmp_path / "index.json").write_text('{"manifests": []}')
    with pytest.raises(RehearsalError, match="expected one image, found 0"):
        registry.layout_digest(tmp_path)


def test_errors_name_their_step_and_a_missing_program(tmp_path: Path) -> None:
    expected = r"start the thing: the program 'no-such-program' .*install_system_packages"
    with pytest.raises(RehearsalError, match=expected), step("start the thing"):
        run(["no-such-program"])
    with pytest.raises(RehearsalError, match="ended with 3 and printed: bad luck"):
        run(["sh", "-c", "echo bad luck >&2; exit 3"])


def test_a_lock_keeps_others_out_until_it_is_released(tmp_path: Path) -> None:
    order: list[str] = []

    def other() -> None:
        with locked(tmp_path / "lock"):
            order.append("second")

    with locked(tmp_path / "lock"):
        thread = threading.Thread(target=other)
        thread.start()
        thread.join(0.2)
        order.append("first")
    thread.join(10)
    assert order == ["first", "second"]


def test_bad_host_names_and_keys_are_refused_before_anything_is_built(tmp_path: Path) -> None:
    with pytest.raises(RehearsalError, match="host name"):
        create(settings(tmp_path), ManualHost("Not A Name", "bare-trixie", "ssh-ed25519 AAAA"))
    with pytest.raises(RehearsalError, match="public key"):
        create(settings(tmp_path), ManualHost("a", "bare-trixie", "-----BEGIN OPENSSH PRIVATE KEY-----"))
    with pytest.raises(RehearsalError, match="use gpu-base"):
        create(settings(tmp_path), ManualHost("a", "bare-trixie", "ssh-ed25519 AAAA", declare("B200", 8, 180)))


def test_the_command_line_refuses_unknown_engines(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        cli.main(["up", "--engines", "tgi"])
    assert "unknown engine tgi; known: vllm, sglang" in capsys.readouterr().err


def test_a_long_step_says_that_it_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(support, "PROGRESS_SECONDS", 0.2)
    with step("all of it"), step("the long part"):
        run_logged(["sh", "-c", "echo first; printf 'Get:7\\r\\033[1mGet:8 \\n'; sleep 0.7"], tmp_path / "log")
    told = [line for line in capsys.readouterr().err.splitlines() if "so far" in line]
    assert len(told) >= 2
    assert set(told) <= {f"    the long part: {seconds} s so far, [1mGet:8" for seconds in (0, 1)}


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may make a mount namespace without asking")
def test_the_namespace_of_podman_goes_with_its_last_user(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    restricted = Machine(unified_cgroup=False, can_raise_limits=True, systemd=False)
    podman = Podman(settings(tmp_path), restricted)
    monkeypatch.setattr(Podman, "containers", lambda _self: [])
    holder = subprocess.Popen(["unshare", "--mount", "sleep", "infinity"])
    write_atomically(tmp_path / "cache/podman/namespace.pid", str(holder.pid))
    while not Path(f"/proc/{holder.pid}/cmdline").read_bytes().startswith(b"sleep"):
        time.sleep(0.01)
    other = subprocess.Popen(["nsenter", f"--mount=/proc/{holder.pid}/ns/mnt", "sleep", "60"])
    while not Path(f"/proc/{other.pid}/cmdline").read_bytes().startswith(b"sleep"):
        time.sleep(0.01)
    podman.release()
    assert holder.poll() is None, "somebody is still in it"
    other.kill()
    other.wait()
    with locked(tmp_path / "cache/podman/users.lock", shared=True):
        podman.release()
        assert holder.poll() is None, "another rehearsal is about to enter it"
    podman.release()
    assert holder.wait(10) != 0
    assert not (tmp_path / "cache/podman/namespace.pid").exists()


def test_what_a_rehearsal_and_its_deploys_leave_is_known_to_down(tmp_path: Path) -> None:
    (tmp_path / "state").mkdir()
    lock_file = tmp_path / "state/glm.lock.yml"
    environment = {**os.environ, "PYTHONPATH": str(ROOT / ".collections")}
    code = (
        "import sys\nfrom pathlib import Path\n"
        "from ansible_collections.glm.fleet.plugins.plugin_utils.plan import lockfile\n"
        "from ansible_collections.glm.fleet.plugins.plugin_utils.actions import host_keys\n"
        "folder = Path(sys.argv[1])\n"
        "with lockfile.locked(folder / 'glm.lock.yml'):\n    pass\n"
        "host_keys.pin(folder / 'known_hosts', 'i-1', host_keys.HostKey('ssh-ed25519', b'k'))\n"
    )
    subprocess.run([sys.executable, "-c", code, str(lock_file.parent)], env=environment, check=True)
    known = world._made_by_up(settings(tmp_path))
    made = [path for path in (tmp_path / "state").rglob("*") if path.is_file()]
    assert len(made) == 3 and set(made) <= set(known)


class Recorded(Podman):
    """podman with these hosts, name to state, that keeps what it is asked to do; no ssh server runs in ``deaf``."""

    def __init__(self, made: Settings, hosts: dict[str, str], deaf: str) -> None:
        super().__init__(made)
        self.hosts = hosts
        self.deaf = deaf
        self.asked: list[tuple[str, str]] = []

    def containers(self, *filters: str) -> list[dict[str, Any]]:
        return [
            {"State": state, "Labels": {KIND_LABEL: "instance", NAME_LABEL: name, NUMBER_LABEL: str(10 + place)}}
            for place, (name, state) in enumerate(self.hosts.items())
        ]

    def run(self, *argv: str, stdin: str | None = None, timeout: float | None = 300) -> str:
        if argv[0] in ("exec", "rm"):
            host = next(name for name in self.hosts if any(word.endswith(f"-{name}") for word in argv))
            self.asked.append((" ".join(argv[2:]) if argv[0] == "exec" else "rm", host))
            if argv[0] == "exec" and host == self.deaf:
                raise RehearsalError("pkill ended with 1 and said: nothing")
        return ""


def test_connections_that_ansible_keeps_open_end_before_their_hosts_are_removed(tmp_path: Path) -> None:
    """With the network gone first, an ssh master of ControlPersist would live on for a minute."""
    made = settings(tmp_path)
    podman = Recorded(made, {"gpu-1": "running", "gpu-2": "exited", "gpu-3": "running"}, deaf="gpu-1")
    assert Machines(made, podman).remove_all(["instance"]) == ["gpu-1", "gpu-2", "gpu-3"]
    assert podman.asked == [
        ("pkill sshd", "gpu-1"), ("pkill sshd", "gpu-3"), ("rm", "gpu-1"), ("rm", "gpu-2"), ("rm", "gpu-3"),
    ]  # fmt: skip
