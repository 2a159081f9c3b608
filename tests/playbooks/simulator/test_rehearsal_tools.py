"""The parts of the rehearsal that need no host: settings, detection, services, the registry's checks, messages."""

from __future__ import annotations

import json
import os
import resource
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
import yaml

from simulator import cli, registry, support, world
from simulator.hosts import adapted, images
from simulator.hosts.accelerators import declare
from simulator.hosts.manual import ManualHost, create
from simulator.hosts.podman import Machine, Podman, containers_conf
from simulator.services import Service, Services
from simulator.settings import Settings
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


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("GLM_REHEARSAL_API_PORT", "80"),
        ("GLM_REHEARSAL_API_PORT", "http"),
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


def service(folder: Path, port: int, program: str) -> Service:
    return Service("web", [sys.executable, "-c", program, str(port)], f"http://127.0.0.1:{port}/", "SOME_PORT")


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


SERVER = """
import http.server, sys
http.server.test(http.server.SimpleHTTPRequestHandler, port=int(sys.argv[1]), bind="127.0.0.1")
"""


def test_a_service_is_started_once_found_again_and_stopped(tmp_path: Path) -> None:
    services = Services(settings(tmp_path))
    web = service(tmp_path, free_port(), SERVER)
    try:
        assert services.start(web) is True
        pid = services.running("web")
        assert pid is not None
        assert Services(settings(tmp_path)).start(web) is False
        assert services.running("web") == pid
    finally:
        assert services.stop("web") is True
    assert services.running("web") is None
    assert services.stop("web") is False


def test_a_service_that_ends_shows_its_last_words(tmp_path: Path) -> None:
    services = Services(settings(tmp_path))
    broken = service(tmp_path, free_port(), "import sys; sys.exit('no room on the disk')")
    with pytest.raises(RehearsalError, match="ended with 1") as caught:
        services.start(broken)
    assert "no room on the disk" in str(caught.value)
    assert "web.log" in str(caught.value) and "SOME_PORT" in str(caught.value)
    assert services.running("web") is None


def test_another_program_on_the_port_is_not_taken_for_the_service(tmp_path: Path) -> None:
    port = free_port()
    command = [sys.executable, "-c", SERVER, str(port)]
    other = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        while not _listens(port):
            assert other.poll() is None, "somebody else took the port in between"
        with pytest.raises(RehearsalError, match="SOME_PORT"):
            Services(settings(tmp_path)).start(service(tmp_path, port, SERVER))
    finally:
        other.kill()
        other.wait()


def _listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


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
    with pytest.raises(RehearsalError, match="ended with 3 and said: bad luck"):
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


def test_a_silent_command_of_a_script_says_that_it_goes_on() -> None:
    script = str(ROOT / "scripts/with_progress.sh")
    done = subprocess.run([script, "x", "sh", "-c", "echo hello; sleep 11"], capture_output=True, text=True, check=True)
    assert (done.stdout, done.stderr) == ("", "    x: 10 s so far, hello\n")
    failed = subprocess.run([script, "x", "sh", "-c", "echo why; exit 3"], capture_output=True, text=True, check=False)
    assert (failed.returncode, failed.stderr) == (3, "why\n")


@pytest.mark.parametrize("there", [True, False])
def test_a_registry_that_was_there_before_is_left_alone(tmp_path: Path, there: bool) -> None:
    """The script on a machine whose tools are these; chromium is missing, so that something is installed."""
    calls = tmp_path / "calls"
    tools = {
        "dpkg-query": f'case "$3" in chromium{"" if there else "|docker-registry"}) exit 1;; esac; echo installed',
        "apt-get": f'echo "apt-get $*" >>{calls}',
        "systemctl": f'echo "systemctl $*" >>{calls}',
        "sudo": 'exec "$@"',
    }
    for name, text in tools.items():
        (tmp_path / name).write_text(f"#!/bin/sh\n{text}\n")
        (tmp_path / name).chmod(0o755)
    environment = {**os.environ, "PATH": f"{tmp_path}:{os.environ['PATH']}"}
    subprocess.run(["sh", str(ROOT / "scripts/install_system_packages.sh")], env=environment, check=True)
    assert ("systemctl disable --now docker-registry.service" in calls.read_text()) is not there
    assert "install --no-install-recommends chromium" in calls.read_text()


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
    podman.release()
    assert holder.wait(10) != 0
    assert not (tmp_path / "cache/podman/namespace.pid").exists()


def test_what_a_rehearsal_and_its_deploys_leave_is_known_to_down(tmp_path: Path) -> None:
    (tmp_path / "state").mkdir()
    lock_file = tmp_path / "state/glm.lock.yml"
    environment = {**os.environ, "XDG_STATE_HOME": str(tmp_path / "home"), "PYTHONPATH": str(ROOT / ".collections")}
    code = (
        "import sys\nfrom pathlib import Path\n"
        "from ansible_collections.glm.fleet.plugins.plugin_utils.plan import lockfile\n"
        "from ansible_collections.glm.fleet.plugins.plugin_utils.actions import host_keys\n"
        "folder = Path(sys.argv[1])\n"
        "with lockfile.locked(folder / 'glm.lock.yml'):\n    pass\n"
        "host_keys.pin(folder / 'known_hosts', 'i-1', host_keys.HostKey('ssh-ed25519', b'k'))\n"
    )
    subprocess.run([sys.executable, "-c", code, str(lock_file.parent)], env=environment, check=True)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_STATE_HOME", str(tmp_path / "home"))
        known = world._made_by_up(settings(tmp_path))
    made = [path for folder in ("state", "home") for path in (tmp_path / folder).rglob("*") if path.is_file()]
    assert len(made) == 3 and set(made) <= set(known)
