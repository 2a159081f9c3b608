"""The roles serve and verify against a host that boots systemd and runs Docker, with a toy engine in the container.

What only a real host shows: that the sandbox lets the docker client work, that arguments survive systemd, that a
second run restarts nothing, that a stop is clean, and what a person reads when an engine fails. The tests build on
one another.
"""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import random
import re
import subprocess
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from ansible_collections.glm.fleet.plugins.module_utils import whoami
from ansible_collections.glm.fleet.plugins.module_utils.cloud import run_alive
from simulator.hosts import images
from simulator.hosts.accelerators import declare
from simulator.hosts.machines import HostRequest, Machines
from simulator.settings import Settings
from tests.integration.logins import wait_for, wait_for_login, wait_for_port
from tests.integration.toy import toy_files
from tests.patience import PATIENCE_SECONDS
from tests.unit.serve.plans import plan

pytestmark = pytest.mark.podman

ROOT = Path(__file__).parents[2]
HERE = Path(__file__).parent
IMAGE = "toy-engine:1"
UNIT = "glm-serve-0.service"
HOLD = "/var/lib/glm/huggingface/toy-hold"
LOADING = "loading weights (shards"
TRICKY = ["--json", '{"a":"b c","n":3}', "--note", "100% of $HOME, ${USER} \\ and 'quotes'\nand a line", ";", "#", ""]


@dataclass
class Run:
    code: int
    output: str

    def changed(self, host: str = "gpu-1") -> int:
        return int(re.search(rf"^{host}\s+: ok=\d+\s+changed=(\d+)", self.output, re.M).group(1))


class Fleet:
    """One host, its inventory, and the plan it is served with."""

    def __init__(self, machines: Machines, folder: Path) -> None:
        self.machines = machines
        self.folder = folder
        self.state = folder / "state"
        self.plan: dict[str, Any] = {}
        self.variables: dict[str, Any] = {}
        self.key = folder / "key"

    def seed(self) -> dict[str, str]:
        """cloud-init's data for the host, with a key of its own."""
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(self.key)], check=True)
        public = self.key.with_suffix(".pub").read_text(encoding="utf-8").strip()
        return {
            "meta-data": json.dumps({"instance-id": "gpu-1", "local-hostname": "gpu-1", "public-keys": [public]}),
            "user-data": "#cloud-config\n{}\n",
        }

    def write_inventory(self, address: str) -> None:
        options = f"-i {self.key} -o StrictHostKeyChecking=no -o UserKnownHostsFile=/dev/null"
        entry = {"ansible_host": address, "ansible_user": "ubuntu", "ansible_ssh_common_args": options}
        inventory = {"all": {"children": {"gpu": {"hosts": {"gpu-1": entry}}}}}
        (self.folder / "hosts.yml").write_text(json.dumps(inventory), encoding="utf-8")

    def on_host(self, *argv: str, stdin: str | None = None) -> str:
        return self.machines.execute("gpu-1", *argv, stdin=stdin)

    def show(self, name: str, unit: str = UNIT) -> str:
        return self.on_host("systemctl", "show", unit, f"--property={name}", "--value").strip()

    def deploy(self, *arguments: str, mode: str = "", hold_until: str = "", **changes: Any) -> Run:
        made = {**self.plan, **changes}
        made["env"] = {**made["env"], **({"TOY_MODE": mode} if mode else {})}
        return self.deploy_plans([made], *arguments, hold_until=hold_until)

    def deploy_plans(
        self, plans: list[dict[str, Any]], *arguments: str, play: str = "serve.yml", hold_until: str = ""
    ) -> Run:
        """``hold_until``: the engine loads weights until this is printed, however seldom somebody looks."""
        variables = self.folder / "plan.json"
        given = {
            **self.variables,
            "serve_plans": plans,
            "door_plans": plans,
            "verify_plans": plans,
            "glm_state_dir": str(self.state),
            "serve_poll_seconds": 1,
        }
        variables.write_text(json.dumps(given), encoding="utf-8")
        if hold_until:
            self.on_host("touch", HOLD)
        output = ""
        with subprocess.Popen(
            ["ansible-playbook", "-i", str(self.folder / "hosts.yml"), str(HERE / "serve" / play),
             "-e", f"@{variables}", *arguments],
            cwd=ROOT, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
            env={**os.environ, "ANSIBLE_NOCOLOR": "1", "ANSIBLE_INJECT_FACT_VARS": "false"},
        ) as going:  # fmt: skip
            hung = threading.Timer(PATIENCE_SECONDS, going.kill)
            hung.start()
            for line in going.stdout:
                output += line
                if hold_until and hold_until in line:
                    self.on_host("rm", "--force", HOLD)
            hung.cancel()
        print(output)
        return Run(going.returncode, output)


@pytest.fixture(scope="module")
def fleet(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fleet]:
    folder = tmp_path_factory.mktemp("serve")
    settings = Settings.from_environment().with_state_dir(folder / "rehearsal")
    machines = Machines(settings)
    image = images.ensure_image(settings, machines.podman, "gpu-base")
    made = Fleet(machines, folder)
    try:
        seed = made.seed()
        host = machines.create(
            HostRequest("gpu-1", image, "gpu-1", "manual", seed, declare("B200", 8, 192), docker=True)
        )
        made.write_inventory(host.ip)
        wait_for_login(machines, "gpu-1", "docker info >/dev/null")
        made.on_host("tee", "/etc/docker/daemon.json", stdin='{"features": {"cdi": true}}')
        made.on_host("systemctl", "restart", "docker")
        build_image(made)
        made.plan = host_plan(host.private_ip)
        yield made
    finally:
        machines.remove_all(["manual"])


def build_image(fleet: Fleet) -> None:
    """The host's own system with the toy in it: the smallest image with a Python that needs no download."""
    fleet.on_host("mkdir", "-p", "/tmp/toy/opt/toy/fake")
    for path, text in toy_files().items():
        fleet.on_host("tee", f"/tmp/toy/opt/toy/{path}", stdin=text)
    system = "usr/bin usr/lib/python3* usr/lib/*-linux-gnu usr/lib64 bin lib lib64"
    fleet.on_host("sh", "-c", f"cd / && tar -c {system} -C /tmp/toy opt | docker import - {IMAGE}")


def host_plan(address: str) -> dict[str, Any]:
    made = plan()
    made["image"]["reference"] = IMAGE
    made["listen"]["address"] = address
    made["timeouts"] = {"start_seconds": 600, "stop_seconds": 300, "drain_seconds": 240, "phases": {}}
    made["secret"]["program"] = []
    made["command"] = ["python3", "/opt/toy/toy_engine.py", *TRICKY]
    return made


def snapshot_of(fleet: Fleet) -> str:
    model = fleet.plan["model"]
    folder = "models--" + model["repository"].replace("/", "--")
    return f"/var/lib/glm/huggingface/hub/{folder}/snapshots/{model['revision']}"


def test_check_mode_works_on_a_fresh_host_and_touches_nothing(fleet: Fleet) -> None:
    run = fleet.deploy("--check", "--diff")
    assert run.code == 0, run.output
    assert fleet.on_host("sh", "-c", "ls /etc/glm /etc/systemd/system/glm* 2>/dev/null || true") == ""
    assert not fleet.state.exists()


def test_missing_weights_are_a_failure_that_says_so(fleet: Fleet) -> None:
    run = fleet.deploy()
    assert run.code != 0
    assert "the weights are not where the plan has them" in run.output


def test_a_first_run_ends_in_a_verified_endpoint(fleet: Fleet) -> None:
    fleet.on_host("mkdir", "-p", snapshot_of(fleet))
    run = fleet.deploy(hold_until=LOADING)
    assert run.code == 0, run.output
    assert "loading weights (shards" in run.output and "glm-serve-0: ready after" in run.output
    report = json.loads((fleet.state / "reports/gpu-1.json").read_text(encoding="utf-8"))
    assert report["ok"] and {check["check"] for check in report["checks"]} >= {"chat", "tool_call", "closed"}
    key = (fleet.state / "api_key").read_text(encoding="utf-8").strip()
    assert key not in run.output and "| curl -H @- " in run.output
    assert re.search(r"^gpu-1 +http://10\.\S+:8000/v1 +glm-5.1-fp8 +vllm 0.32.0 +\S+ +ok +(\d\d)/\1 ", run.output, re.M)


def said(fleet: Fleet, what: str) -> Any:
    """What the toy engine printed about itself when it was started last."""
    journal = fleet.on_host("journalctl", "-u", UNIT, "-o", "cat")
    return json.loads(re.findall(rf"^{what} (.*)$", journal, re.M)[-1])


def test_arguments_arrive_as_the_plan_has_them(fleet: Fleet) -> None:
    assert said(fleet, "argv") == TRICKY


def test_files_are_private_and_the_key_is_in_no_argument_list(fleet: Fleet) -> None:
    modes = fleet.on_host("stat", "-c", "%a %n", "/etc/glm/serve-0.env", "/etc/glm/serve-0.secret.env")
    assert modes.split("\n")[:2] == ["600 /etc/glm/serve-0.env", "600 /etc/glm/serve-0.secret.env"]
    key = (fleet.state / "api_key").read_text(encoding="utf-8").strip()
    secrets = [key, *(fleet.on_host("cat", f"/etc/glm/{name}.key").strip() for name in ("engine", "admin"))]
    places = {
        "argument lists": "cat /proc/[0-9]*/cmdline | tr '\\0' ' '",
        "docker inspect": "docker inspect glm-serve-0",
        "systemctl show": "systemctl show 'glm-*' docker.service",
        "systemctl cat": "systemctl cat glm-serve-0.service glm-door.service",
        # The toy prints its key on purpose, as some engines do.
        "the journal": """journalctl -o json --all | grep -v '"SYSLOG_IDENTIFIER":"glm-engine"'""",
    }
    for place, command in places.items():
        shown = fleet.on_host("sh", "-c", command)
        assert shown and [secret for secret in secrets if secret in shown] == [], place
    words = " ".join(f"-e {secret}" for secret in secrets)
    readable = f"find /etc /run /var/lib/glm -xdev -type f -perm /004 -exec grep -lF {words} {{}} + 2>/dev/null || true"
    assert fleet.on_host("sh", "-c", readable) == ""
    assert fleet.on_host("sh", "-c", f"grep -rl {key} /etc/glm || true") == ""


def test_only_the_private_address_answers(fleet: Fleet) -> None:
    listening = fleet.on_host("ss", "-Hltn", "sport = :8000").split()
    assert f"{fleet.plan['listen']['address']}:8000" in listening and "0.0.0.0:8000" not in listening


def test_the_door_is_the_only_listener_off_loopback_beside_sshd(fleet: Fleet) -> None:
    rows = [line.split() for line in fleet.on_host("ss", "-Hltnp").splitlines()]
    outside = [row for row in rows if not re.match(r"127\.|\[::1\]|\[::ffff:127\.", row[3])]
    assert {re.search(r'\("([^"]+)"', row[5])[1] for row in outside} == {"haproxy", "sshd"}
    assert [row[3] for row in outside if "haproxy" in row[5]] == [f"{fleet.plan['listen']['address']}:8000"]


def status_of(fleet: Fleet, method: str, path: str, key: str = "", port: int = 8000) -> int:
    """What the controller is answered, which comes in as a neighbour does. 0: the connection is refused."""
    connection = http.client.HTTPConnection(fleet.plan["listen"]["address"], port, timeout=PATIENCE_SECONDS)
    try:
        headers = {"Authorization": f"Bearer {key}"} if key else {}
        connection.request(method, path, "{}" if method == "POST" else None, headers)
        return connection.getresponse().status
    except ConnectionRefusedError:
        return 0
    finally:
        connection.close()


def test_nothing_but_the_api_passes_and_the_engine_s_port_refuses(fleet: Fleet) -> None:
    key = (fleet.state / "api_key").read_text(encoding="utf-8").strip()
    engine_key = fleet.on_host("cat", "/etc/glm/engine.key").strip()
    assert status_of(fleet, "GET", "/v1/models", key) == 200
    assert status_of(fleet, "GET", "/v1/models") == status_of(fleet, "GET", "/v1/models", engine_key) == 401
    for method, path in (("POST", "/invocations"), ("GET", "/metrics"), ("GET", "/health"), ("GET", "/version")):
        assert status_of(fleet, method, path) == status_of(fleet, method, path, key) == 404
    assert status_of(fleet, "GET", "/v1/models", key, port=18000) == 0
    assert status_of(fleet, "GET", "/metrics", port=9800) == 0
    assert "vllm:" in fleet.on_host("curl", "-sf", "http://127.0.0.1:9800/metrics/0")
    assert "haproxy_process" in fleet.on_host("curl", "-sf", "http://127.0.0.1:9800/metrics")


def test_the_door_s_unit_is_a_sandbox_and_the_distribution_s_own_does_not_run(fleet: Fleet) -> None:
    exposure = fleet.on_host("systemd-analyze", "security", "--no-pager", "glm-door.service")
    assert float(re.search(r"exposure level for glm-door.service: ([\d.]+)", exposure)[1]) <= 2.0, exposure
    assert fleet.show("ActiveState", "haproxy.service") == "inactive"
    assert fleet.on_host("stat", "-c", "%a %U %G", "/etc/glm/door/haproxy.cfg").split() == ["640", "root", "glm-door"]
    assert fleet.on_host("stat", "-c", "%a %U", "/etc/glm/engine.key").split() == ["600", "root"]


def test_a_door_that_is_killed_is_back_at_once(fleet: Fleet) -> None:
    """All of it, its main process, its worker. The best of three counts: two seconds are those of an idle machine."""
    key = (fleet.state / "api_key").read_text(encoding="utf-8").strip()
    engine = fleet.show("MainPID")
    took = []

    def answers() -> bool:
        with contextlib.suppress(OSError, http.client.HTTPException):
            return status_of(fleet, "GET", "/v1/models", key) == 200
        return False

    for kill in (
        ["systemctl", "kill", "--signal=KILL", "glm-door.service"],
        ["systemctl", "kill", "--signal=KILL", "--kill-whom=main", "glm-door.service"],
        ["pkill", "-KILL", "--newest", "haproxy"],
    ):
        fleet.on_host(*kill)
        begun = time.monotonic()
        wait_for("the door", answers, lambda: "")
        took.append(time.monotonic() - begun)
    print(f"back after {', '.join(f'{seconds:.1f}' for seconds in took)} s")
    assert min(took) <= 2
    assert fleet.show("MainPID") == engine


def keys(fleet: Fleet, **variables: Any) -> str:
    """What keys.yml prints, white space folded."""
    given = {"glm_hosts": "gpu", "glm_state_dir": str(fleet.state), **variables}
    done = subprocess.run(
        ["ansible-playbook", "-i", str(fleet.folder / "hosts.yml"), "keys.yml", "-e", json.dumps(given)], cwd=ROOT,
        stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False,
        env={**os.environ, "ANSIBLE_NOCOLOR": "1", "COLUMNS": "400"},
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    return " ".join(done.stdout.split())


def test_a_key_works_and_is_refused_without_a_restart_and_what_it_used_is_counted(fleet: Fleet) -> None:
    processes = fleet.on_host("pgrep", "haproxy")
    assert "1 of 1 hosts have the keys" in keys(fleet, glm_keys_action="add", glm_key_name="team-a")
    key = (fleet.state / "keys" / "team-a").read_text(encoding="utf-8").strip()
    assert [status_of(fleet, "GET", "/v1/models", key) for _ in range(3)] == [200] * 3
    assert fleet.on_host("systemctl", "is-active", "glm-door-usage.timer").strip() == "active"
    fleet.on_host("systemctl", "start", "glm-door-usage.service")
    (month,) = fleet.on_host("sh", "-c", "ls /var/lib/glm/usage/*.csv").split()
    rows = [line.split(",") for line in fleet.on_host("cat", month).splitlines()]
    assert [row[:6] for row in rows if row[0] == "team-a"] == [["team-a", "3", "0", "0", "0", "0"]]
    assert "team-a valid 0 h never 20" in keys(fleet)
    kept = (fleet.state / "usage" / Path(month).name).read_text(encoding="utf-8")
    assert "gpu-1,team-a,3,0,0,0,0," in kept
    keys(fleet, glm_keys_action="revoke", glm_key_name="team-a")
    assert status_of(fleet, "GET", "/v1/models", key) == 401
    assert fleet.on_host("pgrep", "haproxy") == processes
    exposure = fleet.on_host("systemd-analyze", "security", "--no-pager", "glm-door-usage.service")
    assert float(re.search(r"exposure level for glm-door-usage.service: ([\d.]+)", exposure)[1]) <= 2.0, exposure


# Each takes the lease of the host, whatever it does then: there is no release here that could be rolled.
VERBS = {
    "deploy": ("deploy.yml", "--tags", "dor_usage"),
    "keys": ("keys.yml",),
    "roll": ("roll.yml",),
    "rollback": ("rollback.yml",),
}
LACKS_A_RELEASE = "of none (kept: none)", "expected a release that passed here before"


def two_at_once(fleet: Fleet, seed: int) -> list[tuple[str, str, int, str]]:
    """Two runs, in a random order and begun at random moments: verb, key, exit status and output (folded) of each."""
    dice = random.Random(seed)
    # Keys are what a run must not lose.
    verbs = ["keys", sorted(VERBS)[seed % len(VERBS)]]
    dice.shuffle(verbs)
    going = []
    for number, verb in enumerate(verbs):
        name = f"seed-{seed}-{number}"
        given = {
            "glm_hosts": "gpu", "glm_state_dir": str(fleet.state), "glm_keys_action": "add", "glm_key_name": name,
            "glm_accelerator": "B200", "glm_accelerator_count": 8,
            "glm_private_address": fleet.plan["listen"]["address"],
        }  # fmt: skip
        process = subprocess.Popen(
            ["ansible-playbook", "-i", str(fleet.folder / "hosts.yml"), *VERBS[verb], "-e", json.dumps(given)],
            cwd=ROOT, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
            env={**os.environ, "ANSIBLE_NOCOLOR": "1", "COLUMNS": "400"},
        )  # fmt: skip
        going.append((verb, name, process))
        time.sleep(dice.choice([0.0, 0.2, 1.0, 3.0]))
    found = [(verb, name, process.communicate(timeout=PATIENCE_SECONDS)[0], process) for verb, name, process in going]
    return [(verb, name, process.returncode, " ".join(output.split())) for verb, name, output, process in found]


@pytest.mark.parametrize("seed", range(int(os.environ.get("GLM_HISTORIES", "5"))))
def test_of_two_controllers_one_goes_on_and_nothing_that_it_did_is_lost(fleet: Fleet, seed: int) -> None:
    own = (fleet.state / "api_key").read_text(encoding="utf-8").strip()
    engine = fleet.show("MainPID")
    runs = two_at_once(fleet, seed)
    refused = [run for run in runs if "lease: expected no other run to be changing this host" in run[3]]
    print(f"seed {seed}: {[run[:3] for run in runs]}, refused: {[run[0] for run in refused]}")
    assert len(refused) < 2, "somebody goes on"
    stored = json.loads((fleet.state / "keys.json").read_text(encoding="utf-8"))
    for number, (verb, name, code, output) in enumerate(runs):
        other = VERBS[runs[1 - number][0]][0]
        if (verb, name, code, output) in refused:
            assert code != 0 and f"found {whoami.user_at_machine()} with {other} since" in output, output
            assert name not in json.dumps(stored) and not (fleet.state / "keys" / name).exists(), output
        elif verb == "keys":
            assert code == 0 and "1 of 1 hosts have the keys" in output, output
            key = (fleet.state / "keys" / name).read_text(encoding="utf-8").strip()
            assert name in json.dumps(stored) and status_of(fleet, "GET", "/v1/models", key) == 200
        elif verb in ("roll", "rollback"):
            assert code != 0 and any(words in output for words in LACKS_A_RELEASE), output
    left = json.loads(fleet.on_host("cat", "/run/glm/lease.json"))
    # A whole batch that fails, here of a host without a release, ends its run before that can free the host.
    assert left["released"] or (left["playbook"].startswith("roll") and run_alive.has_ended(left["run"])), left
    assert status_of(fleet, "GET", "/v1/models", own) == 200 and fleet.show("MainPID") == engine


def test_an_engine_of_release_0_1_leaves_the_port_to_the_door(fleet: Fleet) -> None:
    """It was published where clients come in, and there was no door."""
    address = fleet.plan["listen"]["address"]
    fleet.on_host("systemctl", "disable", "--now", "glm-door.service")
    fleet.on_host("rm", "-r", "/etc/glm/door", "/etc/systemd/system/glm-door.service")
    edits = [
        "s/127.0.0.1:18000:8000/%s:8000:8000/",
        "s/--address 127.0.0.1/--address %s/",
        "s/--port 18000/--port 8000/",
    ]
    sed = [word for edit in edits for word in ("-e", edit.replace("%s", address))]
    fleet.on_host("sed", "-i", *sed, f"/etc/systemd/system/{UNIT}")
    fleet.on_host("systemctl", "daemon-reload")
    fleet.on_host("systemctl", "restart", UNIT)
    assert "docker-proxy" in fleet.on_host("ss", "-Hltnp", "sport = :8000")
    check = fleet.deploy("--check")
    assert check.code == 0 and check.changed() > 0, check.output
    # What it did not write counts: the restart that the next run makes is predicted.
    assert re.search(r"TASK \[[^\n]*Start \| Start replicas[^\n]*\n(ok: [^\n]*\n)*changed: ", check.output), (
        check.output
    )
    assert "docker-proxy" in fleet.on_host("ss", "-Hltnp", "sport = :8000")
    run = fleet.deploy()
    assert run.code == 0, run.output
    assert "haproxy" in fleet.on_host("ss", "-Hltnp", "sport = :8000")


def test_the_gpus_are_inside_the_container(fleet: Fleet) -> None:
    assert len(said(fleet, "devices")) == fleet.plan["accelerator"]["count"]


def test_the_container_has_no_rights_but_those_it_needs(fleet: Fleet) -> None:
    pid = fleet.on_host("docker", "inspect", "--format", "{{.State.Pid}}", "glm-serve-0").strip()
    status = dict(line.split(":", 1) for line in fleet.on_host("cat", f"/proc/{pid}/status").splitlines())
    rights = {name: status[name].strip() for name in ("CapEff", "CapPrm", "CapBnd", "NoNewPrivs", "Seccomp")}
    none = "0" * 16
    assert rights == {"CapEff": none, "CapPrm": none, "CapBnd": none, "NoNewPrivs": "1", "Seccomp": "2"}
    mounts = [line.split() for line in fleet.on_host("cat", f"/proc/{pid}/mounts").splitlines()]
    writable = {target for _source, target, _kind, options, *_rest in mounts if "rw" in options.split(",")}
    cache = "/root/.cache/engine"
    assert writable >= {"/tmp", "/root", "/dev/shm", cache} and not {"/", "/root/.cache/huggingface"} & writable
    # A machine with cgroup v1 and v2 side by side has no such limit in its hosts; Docker warns and goes on.
    if "pids" in fleet.on_host("cat", "/sys/fs/cgroup/cgroup.controllers").split():
        group = fleet.on_host("cat", f"/proc/{pid}/cgroup").strip().partition("::")[2]
        assert fleet.on_host("cat", f"/sys/fs/cgroup{group}/pids.max").strip() == "32768"


LISTENER = "import http.server as h; h.HTTPServer(('', {port}), h.SimpleHTTPRequestHandler).serve_forever()"


def listen(fleet: Fleet, port: int, *inside: str, slice_name: str = "") -> None:
    """A port that takes no key, as engines open them: in the replica's slice, or outside of it as the control."""
    unit = [f"--unit=listener-{port}", *([f"--slice={slice_name}"] if slice_name else [])]
    fleet.on_host("systemd-run", *unit, *inside, "python3", "-c", LISTENER.format(port=port))


def reaches(fleet: Fleet, address: str, port: int) -> bool:
    """Whether the neighbour gets a connection."""
    code = f"import socket; socket.create_connection(({address!r}, {port}), timeout=3)"
    return not fleet.machines.execute("gpu-2", "sh", "-c", f'python3 -c "{code}" 2>&1 || true').strip()


def test_a_neighbour_reaches_no_port_of_the_replica_by_whatever_route(fleet: Fleet) -> None:
    """Docker 26 lets it through to the container; ports on the host's own network are those of bare metal."""
    form = "{{.State.Pid}} {{.NetworkSettings.IPAddress}}"
    pid, container = fleet.on_host("docker", "inspect", "--format", form, "glm-serve-0").split()
    own, inside, replica = fleet.plan["listen"]["address"], ["nsenter", "-t", pid, "-n"], "glm-serve-0.slice"
    listen(fleet, 9001, *inside)
    listen(fleet, 9002, *inside, slice_name=replica)
    listen(fleet, 9003)
    listen(fleet, 9004, slice_name=replica)
    data = {"instance-id": "gpu-2", "local-hostname": "gpu-2", "public-keys": []}
    seed = {"meta-data": json.dumps(data), "user-data": "#cloud-config\n{}\n"}
    image = images.ensure_image(fleet.machines.settings, fleet.machines.podman, "gpu-base")
    fleet.machines.create(HostRequest("gpu-2", image, "gpu-2", "manual", seed, declare("B200", 8, 192)))
    try:

        def routed() -> bool:
            # Each time: while the host boots, its network may be set up once more.
            fleet.machines.execute("gpu-2", "ip", "route", "replace", container, "via", own)
            return reaches(fleet, container, 9001) and reaches(fleet, own, 9003)

        wait_for("the control ports", routed, lambda: fleet.machines.execute("gpu-2", "ip", "route"))
        open_ports = [(container, fleet.plan["listen"]["container_port"]), (container, 9002), (own, 9004)]
        assert [place for place in open_ports if reaches(fleet, *place)] == []
        # The host itself is let in.
        for address, port in open_ports:
            fleet.on_host("python3", "-c", f"import socket; socket.create_connection(({address!r}, {port}), timeout=5)")
    finally:
        fleet.on_host("systemctl", "stop", *(f"listener-{port}" for port in (9001, 9002, 9003, 9004)))
        fleet.machines.destroy("gpu-2")


def test_a_second_run_changes_nothing_and_restarts_nothing(fleet: Fleet) -> None:
    before = fleet.show("MainPID"), fleet.show("InvocationID")
    run = fleet.deploy()
    assert (run.code, run.changed()) == (0, 0), run.output
    assert (fleet.show("MainPID"), fleet.show("InvocationID")) == before


def test_a_changed_environment_restarts_the_replica(fleet: Fleet) -> None:
    before = fleet.show("InvocationID")
    run = fleet.deploy(env={**fleet.plan["env"], "A_NEW": "value"})
    assert run.code == 0, run.output
    assert fleet.show("InvocationID") != before


# Asks /ready every 50 ms, without a key, until a file is there; says each answer that is another than the one before.
BALANCER = """
import http.client, os, ssl, sys, time
seen = None
while not os.path.exists("/tmp/balancer-ends"):
    connection = http.client.HTTP{secure}Connection("{address}", {port}, timeout=5{more})
    try:
        connection.request("GET", "/ready")
        found = connection.getresponse().status
    except OSError:
        found = "refused"
    if found != seen:
        print(found, round(time.time(), 1), flush=True)
    seen = found
    time.sleep(0.05)
"""


def test_a_stop_and_a_deploy_are_seen_by_a_balancer_before_the_engine_hears_of_them(fleet: Fleet) -> None:
    listen = fleet.plan["listen"]
    tls = listen["scheme"] == "https"
    more = ", context=ssl._create_unverified_context()" if tls else ""
    text = BALANCER.format(address=listen["address"], port=listen["port"], secure="S" if tls else "", more=more)
    fleet.on_host("rm", "--force", "/tmp/balancer-ends")
    fleet.on_host("tee", "/tmp/balancer.py", stdin=text)
    log = "StandardOutput=file:/tmp/balancer.log"
    fleet.on_host("systemd-run", "--unit=balancer", f"--property={log}", "python3", "/tmp/balancer.py")
    program = ["python3", "-I", "-B", "/usr/local/lib/glm/door_drain"]

    def state() -> dict[str, Any]:
        return json.loads(fleet.on_host(*program, "state"))

    try:
        wait_for("the balancer", lambda: state()["asked"], lambda: str(state()))
        begun = time.monotonic()
        fleet.on_host("systemctl", "stop", UNIT)
        assert time.monotonic() - begun >= 5, "balancers had no time to hear of it"
        fleet.on_host("systemctl", "start", UNIT)
        # The unit is active at the engine's first answer; the door asks the engine once more by itself.
        wait_for(
            "the door without the unit's mark",
            lambda: state()["replicas"][0]["state"] == "serving",
            lambda: str(state()),
        )
        run = fleet.deploy(env={**fleet.plan["env"], "A_NEWER": "value"})
        assert run.code == 0, run.output
        assert state()["replicas"][0]["state"] == "serving"
    finally:
        fleet.on_host("touch", "/tmp/balancer-ends")
    answers = [line.split()[0] for line in fleet.on_host("cat", "/tmp/balancer.log").splitlines()]
    print(answers)
    # Never refused by the door, and never down before it was draining.
    assert answers[0] == "200" and answers[-1] == "200" and "refused" not in answers
    assert [one for one, before in zip(answers[1:], answers) if before == "200"] == ["404", "404"]


def test_an_interrupted_run_is_finished_by_the_next_one(fleet: Fleet) -> None:
    before = fleet.show("InvocationID")
    assert fleet.deploy("--tags", "serve_configure").code == 0
    assert fleet.show("InvocationID") == before
    assert fleet.deploy().code == 0
    assert fleet.show("InvocationID") != before


@pytest.mark.parametrize(("mode", "statuses"), [("", []), ("killed", ["137", "SIGKILL"])])
def test_a_stop_is_clean_and_leaves_nothing(fleet: Fleet, mode: str, statuses: list[int]) -> None:
    assert fleet.deploy(mode=mode, stop={"drains": True, "success_exit_status": statuses}).code == 0
    fleet.on_host("systemctl", "stop", UNIT)
    assert (fleet.show("ActiveState"), fleet.show("Result")) == ("inactive", "success")
    assert fleet.on_host("docker", "ps", "--all", "--quiet") == ""


def kill_and_wait(fleet: Fleet) -> None:
    """Kill the engine; returns when systemd has brought it back."""
    before = fleet.show("InvocationID")
    fleet.on_host("docker", "kill", "glm-serve-0")
    wait_for(
        "a restart",
        lambda: fleet.show("InvocationID") not in ("", before) and fleet.show("ActiveState") == "active",
        lambda: fleet.on_host("sh", "-c", f"systemctl status {UNIT} || true"),
    )


def ends(fleet: Fleet) -> list[dict[str, Any]]:
    return json.loads(fleet.on_host("cat", "/var/lib/glm/restarts/glm-serve-0.json"))["ends"]


def test_what_served_is_brought_back_after_each_kill_and_it_is_kept_why(fleet: Fleet) -> None:
    assert fleet.deploy(mode="killed", stop={"drains": True, "success_exit_status": ["137", "SIGKILL"]}).code == 0
    fleet.on_host("rm", "--force", "/var/lib/glm/restarts/glm-serve-0.json")
    kill_and_wait(fleet)
    kill_and_wait(fleet)
    # A restart by hand is no failure, and no crash.
    fleet.on_host("systemctl", "restart", UNIT)
    kill_and_wait(fleet)
    kept = ends(fleet)
    assert [(one["code"], one["status"]) for one in kept] == [("exited", "137")] * 3
    assert all(one["served"] > 0 for one in kept)


def test_a_start_that_fails_twice_before_its_first_answer_stays_failed(fleet: Fleet) -> None:
    before = len(ends(fleet))
    run = fleet.deploy(mode="exit")
    assert run.code != 0
    wait_for("failed", lambda: fleet.show("ActiveState") == "failed", lambda: fleet.show("SubState"))
    assert [one["served"] for one in ends(fleet)[before:]] == [0, 0]


def test_an_engine_that_exits_shows_its_last_lines_without_the_key(fleet: Fleet) -> None:
    run = fleet.deploy(mode="exit")
    assert run.code != 0 and fleet.on_host("cat", "/etc/glm/engine.key").strip() not in run.output
    expected = (
        "gpu-1, serve, phase 'loading weights'",
        "in 2 attempts",
        "exit status 1",
        "ValueError: cannot serve with ********",
        "systemd tries once more",
    )
    assert [words for words in expected if words not in run.output] == []
    assert fleet.on_host("docker", "ps", "--all", "--quiet") == ""


def test_an_engine_that_answers_all_but_chats_is_named_as_such(fleet: Fleet) -> None:
    run = fleet.deploy(mode="no-chat")
    assert run.code != 0
    assert "the engine answers /health and /v1/models but not a chat" in run.output


@pytest.mark.parametrize(("port", "variable"), [("8000", "glm_port"), ("18000", "glm_engine_port")])
def test_a_port_in_use_names_who_has_it(fleet: Fleet, port: str, variable: str) -> None:
    fleet.on_host("systemctl", "stop", UNIT, "glm-door.service")
    fleet.on_host("systemd-run", "--unit=squatter", "python3", "-m", "http.server", port)
    try:
        wait_for_port(fleet.machines, "gpu-1", int(port))
        run = fleet.deploy()
        said = " ".join(run.output.split())
        assert run.code != 0
        assert re.search(rf"gpu-1, .*port {port} to be free, found process \d+ \(python3: .*http\.server", said)
        assert f"choose another {variable}." in said
    finally:
        fleet.on_host("systemctl", "stop", "squatter")


def test_a_missing_image_is_named(fleet: Fleet) -> None:
    run = fleet.deploy(image={**fleet.plan["image"], "reference": "no-such-image:1"})
    assert run.code != 0 and "the image is not on the host" in run.output


def replicas_of(made: dict[str, Any]) -> list[dict[str, Any]]:
    """The host's plan as two replicas on four GPUs each."""
    both = []
    for number, indices in enumerate(([0, 1, 2, 3], [4, 5, 6, 7])):
        one = json.loads(json.dumps({**made, "replica": number, "replicas": 2}))
        one["accelerator"]["indices"] = indices
        one["devices"] = [f"nvidia.com/gpu={index}" for index in indices]
        one["listen"].update(port=8000 + number, engine_port=18000 + number)
        both.append(one)
    return both


def test_two_replicas_share_a_host_and_one_of_them_goes_again(fleet: Fleet) -> None:
    second = "glm-serve-1.service"
    assert fleet.deploy().code == 0
    run = fleet.deploy_plans(replicas_of(fleet.plan))
    assert run.code == 0, run.output
    assert re.search(r"^gpu-1 +http://10\.\S+:8001/v1 .* ok +(\d\d)/\1 ", run.output, re.M)
    for number in (0, 1):
        assert (fleet.state / f"reports/gpu-1-{number}.json").is_file()
        journal = fleet.on_host("journalctl", "-u", f"glm-serve-{number}", "-o", "cat")
        shown = json.loads(re.findall(r"^devices (.*)$", journal, re.M)[-1])
        assert sorted(shown) == [f"/dev/nvidia{index}" for index in range(4 * number, 4 * number + 4)]
    again = fleet.deploy_plans(replicas_of(fleet.plan))
    assert (again.code, again.changed()) == (0, 0), again.output
    back = fleet.deploy()
    assert back.code == 0 and f"{second} was stopped and disabled" in back.output
    assert (fleet.show("ActiveState", second), fleet.show("UnitFileState", second)) == ("inactive", "disabled")
    last = fleet.deploy()
    assert (last.code, last.changed()) == (0, 0) and "disabled" not in last.output
