# Copyright (c) 2026, glm.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a serving unit does around its engine: wait for what it needs, prove that it serves, clean up.

Called by glm-serve-<n>.service only. Standard library, Python 3.9 or newer. Exit 0 means go on; exit 1 is a failure
whose reason is the last line on stderr, which the journal keeps.
"""

from __future__ import annotations

import argparse
import errno
import hashlib
import http.client
import json
import os
import re
import select
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any, Optional

# `python3 -I` leaves out the folder of the script, where the role serve puts the filter and the reader of CDI specs.
sys.path.insert(0, str(Path(__file__).resolve().parent))
import serve_filter  # type: ignore[import-not-found, unused-ignore]

try:
    import glm_cdi as cdi  # type: ignore[import-not-found, unused-ignore]
    import glm_restarts as restarts  # type: ignore[import-not-found, unused-ignore]
except ImportError:
    from ansible_collections.glm.fleet.plugins.module_utils.host import cdi  # type: ignore[no-redef, unused-ignore]
    from ansible_collections.glm.fleet.plugins.module_utils.serving import restarts  # type: ignore[no-redef, unused-ignore]

DOCKER = "/usr/bin/docker"
# The one node that each GPU has, by CDI kind. (NVIDIA's specs list render nodes, too.)
GPU_NODES = {"nvidia.com/gpu": re.compile(r"/dev/nvidia\d+"), "amd.com/gpu": re.compile(r"/dev/dri/renderD\d+")}
# Where there is no CDI: device files of which each GPU has one, by a file or folder that comes with them.
GPU_FILES = {"/dev/nvidiactl": "dev/nvidia[0-9]*", "/dev/dri": "dev/dri/renderD*"}
# A first request may still compile kernels.
CHAT_SECONDS = 600
CHAT_ATTEMPTS = 3
HEARTBEAT_SECONDS = 60
# A host that lost power says nothing; one that only swaps is slow.
SILENCE_SECONDS = 30
# EX_TEMPFAIL of sysexits.h: systemd starts the unit again.
PEER_LOST = int(restarts.PEER_LOST)


class GuardError(Exception):
    """The replica cannot start; the text says what was expected, what was found and what to do."""


def say(text: str) -> None:
    """One line for the journal."""
    print(f"glm: {text}", file=sys.stderr, flush=True)


# --- before the engine ------------------------------------------------------------------------------------------


def docker(*words: str) -> str:
    """Output of a docker command; raises GuardError with docker's own words when it fails."""
    done = subprocess.run([DOCKER, *words], capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise GuardError(f"docker {words[0]} failed with {done.returncode}: {done.stderr.strip()}")
    return done.stdout


def remove_container(name: str) -> None:
    """Remove what a killed client or a crashed dockerd may have left under this name."""
    if docker("ps", "--all", "--quiet", "--filter", f"name=^/{name}$").strip():
        say(f"removing the container {name} that is still there")
        docker("rm", "--force", "--volumes", name)


def missing_devices(wanted: list[str], gpus: int, specs: list[dict[str, Any]]) -> list[str]:
    """What is not there yet, in words; empty when every device can be given to a container.

    ``gpus`` is how many ``all`` has to mean. Other devices of a spec may be missing: they are not this replica's.
    """
    missing = []
    for device in wanted:
        kind, name = device.partition("=")[::2]
        naming = {spec["path"]: spec for spec in specs if spec["kind"] == kind and name in spec["devices"]}
        path, rivals = cdi.taken(list(naming))
        if rivals:
            both = " and ".join(rivals)
            missing.append(f"{both} both name the device {device}, so Docker uses neither: remove all but one")
            continue
        if path is None:
            missing.append(f"no CDI spec in {' or '.join(cdi.FOLDERS)} names the device {device}")
            continue
        nodes: dict[str, str] = {**naming[path]["common"], **naming[path]["devices"][name]}
        missing += [f"the device file {host} is missing" for host in nodes.values() if not Path(host).exists()]
        pattern = GPU_NODES.get(kind)
        found = len([path for path in nodes if pattern and pattern.fullmatch(path)])
        if name == "all" and pattern and found < gpus:
            missing.append(f"the CDI spec of {kind} lists {found} of the {gpus} GPUs of the plan")
    return list(dict.fromkeys(missing))


def missing_nodes(wanted: list[str], gpus: int, root: Path = Path("/")) -> list[str]:
    """Which device files are not there yet, in words. A GPU that can compute has one render node (AMD, amdgpu driver);
    a management controller's display has none.
    """
    missing = [f"{path} is missing" for path in wanted if not (root / path.lstrip("/")).exists()]
    for path, pattern in GPU_FILES.items():
        found = len(list(root.glob(pattern)))
        if path in wanted and not missing and found < gpus:
            missing.append(f"/{pattern} are {found} of the {gpus} GPUs of the plan")
    return missing


def wait_for_devices(options: argparse.Namespace) -> None:
    """Return when the GPUs are there; raise GuardError at the deadline, naming what is missing."""
    deadline = time.monotonic() + options.wait
    announced = False
    while True:
        specs, unread = cdi.read() if options.device else ([], [])
        missing = missing_devices(options.device, options.gpus, specs)
        # Docker may read such a file, and find the device in it.
        missing += [f"cannot read {problem}" for problem in unread] if missing else []
        missing += missing_nodes(options.node, options.gpus)
        if not missing:
            for problem in unread:
                say(f"cannot read {problem}")
            return
        if time.monotonic() >= deadline:
            where = "nvidia-cdi-refresh.service" if options.device else "the driver: dmesg"
            raise GuardError(f"the GPUs are not ready: {'; '.join(missing)}. Look at {where}")
        if not announced:
            say("waiting for the GPUs: " + "; ".join(missing))
            announced = True
        time.sleep(2)


def port_problem(address: str, port: int) -> Optional[str]:
    """Why ``address:port`` cannot be listened on, or None."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((address, port))
        except OSError as exc:
            if exc.errno == errno.EADDRINUSE:
                return f"port {port} on {address} is in use by another program (see: ss -ltnp sport = :{port})"
            if exc.errno == errno.EADDRNOTAVAIL:
                return f"{address} is not an address of this host (see: ip address)"
            if exc.errno != errno.EACCES:  # a port below 1024: docker, not this script, has the right to it
                return f"cannot listen on {address} port {port}: {exc.strerror}"
    return None


def wait_for_port(address: str, port: int, seconds: float = 15) -> None:
    """Give a port that was just released, or an address that is just coming up, a moment."""
    deadline = time.monotonic() + seconds
    while problem := port_problem(address, port):
        if time.monotonic() >= deadline:
            raise GuardError(problem)
        time.sleep(1)


def stamp(files: list[str], folder: Optional[str]) -> None:
    """Record what this start was made from, so that a later run can distinguish a stale replica from a current one."""
    if folder is None:
        raise GuardError("RUNTIME_DIRECTORY is not set; this must run inside its unit")
    sums = {file: hashlib.sha256(Path(file).read_bytes()).hexdigest() for file in files}
    Path(folder, "started.json").write_text(json.dumps(sums, sort_keys=True), encoding="utf-8")


def shown(unit: str) -> dict[str, str]:
    """What systemd says of a unit; nothing where it does not answer."""
    words = [serve_filter.SYSTEMCTL, "show", unit, "--property", restarts.PROPERTIES]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    return dict(line.split("=", 1) for line in done.stdout.splitlines() if "=" in line)


def wait_after_crashes(unit: str) -> None:
    """Where systemd starts an engine again that keeps ending soon after its first answer, wait longer each time."""
    # Without a number somebody starts it.
    seconds, why = restarts.pause_of(restarts.file_of(unit)) if shown(unit).get("NRestarts", "0") != "0" else (0, "")
    if why:
        say(why)
        time.sleep(seconds)


def poststop(options: argparse.Namespace) -> None:
    """Write down an end that nobody asked for. Whatever fails here must not keep the unit from its restart."""
    try:
        if end := restarts.unasked(shown(options.unit), os.environ):
            restarts.add(restarts.file_of(options.unit), end)
    except OSError as exc:
        say(f"cannot write down that the engine ended: {exc}")
    if options.container:
        remove_container(options.container)


def answered(options: argparse.Namespace) -> None:
    """After the first answer. Failed starts before it are forgotten: systemd would count them against what comes later.

    That forgets how often systemd itself restarted the unit, too; so it is kept when somebody started it.
    """
    if shown(options.unit).get("NRestarts") == "0":
        restarts.begin(restarts.file_of(options.unit))
    subprocess.run([serve_filter.SYSTEMCTL, "reset-failed", options.unit], check=False)


def prestart(options: argparse.Namespace) -> None:
    """Everything that must be true before the engine is started."""
    if options.container:
        remove_container(options.container)
    wait_after_crashes(options.unit)
    serve_filter.close(options.slice, options.peer)
    wait_for_devices(options)
    wait_for_port(options.address, options.port)
    stamp(options.stamp, os.environ.get("RUNTIME_DIRECTORY"))


# --- after the engine -------------------------------------------------------------------------------------------


def read_key(path: str) -> str:
    """The API key from ``NAME=value`` (as systemd and shells read it) or from one line of YAML with a JSON string."""
    line = Path(path).read_text(encoding="utf-8").splitlines()[-1]
    if path.endswith(".env"):
        value = line.partition("=")[2]
        return re.sub(r"\\(.)", r"\1", value[1:-1]) if value.startswith('"') else value
    return str(json.loads(line.partition(": ")[2]))


def ask(options: argparse.Namespace, method: str, path: str, body: Any, seconds: float) -> tuple[int, Any]:
    """One request with the key. The answer's JSON, or its text where it is not JSON."""
    connection = http.client.HTTPConnection(options.address, options.port, timeout=max(seconds, 1))
    try:
        headers = {"Authorization": f"Bearer {read_key(options.secret)}", "Content-Type": "application/json"}
        connection.request(method, path, json.dumps(body) if body is not None else None, headers)
        answer = connection.getresponse()
        text = answer.read().decode("utf-8", "replace")
    finally:
        connection.close()
    try:
        return answer.status, json.loads(text)
    except ValueError:
        return answer.status, text


def started_at(pid: int) -> Optional[str]:
    """The kernel's start time of a process, which differs if the process id was reused; None when it ended."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()
    except OSError:
        return None
    return None if fields[0] in ("Z", "X") else fields[19]


def models_answer(options: argparse.Namespace) -> bool:
    """Whether /v1/models lists the model. Raises GuardError for answers that waiting cannot change."""
    try:
        status, answer = ask(options, "GET", "/v1/models", None, 10)
    except (OSError, http.client.HTTPException):
        return False
    if status in (401, 403):
        raise GuardError(f"/v1/models refuses the key in {options.secret} with {status}: another engine has the port?")
    if status != 200 or not isinstance(answer, dict):
        return False
    names = [model.get("id") for model in answer.get("data", [])]
    if options.model not in names:
        raise GuardError(f"/v1/models lists {names}, not {options.model}: another engine has the port?")
    return True


def chat_problem(options: argparse.Namespace, seconds: float) -> Optional[str]:
    """Why one short chat got no answer, or None when it did."""
    body = {"model": options.model, "messages": [{"role": "user", "content": "Hi"}], "max_tokens": 1}
    try:
        status, answer = ask(options, "POST", "/v1/chat/completions", body, seconds)
    except socket.timeout:
        return f"no answer within {seconds:.0f} s"
    except (OSError, http.client.HTTPException) as exc:
        return f"{type(exc).__name__}: {exc}"
    if status != 200 or not isinstance(answer, dict) or not answer.get("choices"):
        return f"HTTP {status} {str(answer)[:300]}"
    return None


def ready(options: argparse.Namespace, main_pid: int) -> None:
    """Return once the engine lists its model and answers a chat; raise GuardError as soon as it cannot any more."""
    begun = time.monotonic()
    deadline = begun + options.wait
    born = started_at(main_pid)
    if options.container:
        serve_filter.admit(
            options.slice,
            options.container,
            options.peer,
            lambda: born is not None and started_at(main_pid) == born and time.monotonic() < deadline,
        )
    spoken = begun
    while not models_answer(options):
        now = time.monotonic()
        if born is None or started_at(main_pid) != born:
            raise GuardError(f"the engine ended after {now - begun:.0f} s, before the engine answered")
        if now >= deadline:
            raise GuardError(f"the engine answered no /v1/models within its budget of {options.wait} s")
        if now - spoken >= HEARTBEAT_SECONDS:
            spoken = now
            say(f"not answering yet, {now - begun:.0f} of {options.wait} s")
        time.sleep(2)
    problem: Optional[str] = None
    for _attempt in range(CHAT_ATTEMPTS):
        left = deadline - time.monotonic()
        if left <= 0:
            break
        problem = chat_problem(options, min(CHAT_SECONDS, left))
        if problem is None:
            say(f"ready after {time.monotonic() - begun:.0f} s: {options.model} answers a chat")
            return
        if started_at(main_pid) != born:
            raise GuardError(f"the engine ended while it answered the first chat ({problem})")
        time.sleep(2)
    raise GuardError(f"the engine answers /v1/models but not a chat: {problem or 'its start budget is spent'}")


# --- one of several hosts ---------------------------------------------------------------------------------------


def watch(link: socket.socket) -> None:
    """Have the kernel ask whether the other host is there; one that lost power would be waited for for ever."""
    probe, probes = SILENCE_SECONDS // 3, 2
    link.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    link.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, probe)
    link.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, probe)
    link.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPCNT, probes)


class Peers:
    """Connections between the first host of a replica and the others: if one is lost, all stop and start together.

    An engine that lost a rank does not end; its other ranks hang in a collective until a watchdog of minutes.
    """

    def __init__(self, options: argparse.Namespace) -> None:
        self.options = options
        self.links: dict[str, socket.socket] = {}
        self.heard: dict[str, float] = {}
        self.said = float("-inf")

    def meet(self) -> None:
        """Return when every rank is there. The wait is not limited here: a host may take its time to boot."""
        if self.options.rank == 0:
            self._gather()
        else:
            self._join()
        for link in self.links.values():
            link.settimeout(5)
        self.heard = dict.fromkeys(self.links, time.monotonic())

    def _gather(self) -> None:
        family = socket.AF_INET6 if ":" in self.options.head else socket.AF_INET
        with socket.create_server((self.options.head, self.options.port), family=family) as server:
            server.settimeout(HEARTBEAT_SECONDS)
            while len(self.links) < self.options.count - 1:
                missing = [f"rank {rank}" for rank in range(1, self.options.count) if f"rank {rank}" not in self.links]
                try:
                    link, _address = server.accept()
                    link.settimeout(5)
                    name = f"rank {int(link.recv(16).decode('ascii'))}"
                except socket.timeout:
                    say(f"waiting for {', '.join(missing)}")
                    continue
                except (OSError, ValueError):
                    continue
                if name in self.links:  # it was started again while it waited
                    self.links.pop(name).close()
                self.links[name] = link
        for link in self.links.values():
            link.sendall(b"go")

    def _join(self) -> None:
        spoken = float("-inf")
        while True:
            try:
                link = socket.create_connection((self.options.head, self.options.port), timeout=5)
                link.sendall(f"{self.options.rank}\n".encode("ascii"))
                link.settimeout(None)
                watch(link)
                if link.recv(2) == b"go":
                    self.links["rank 0"] = link
                    return
            except OSError:
                pass
            if time.monotonic() - spoken >= HEARTBEAT_SECONDS:
                spoken = time.monotonic()
                say(f"waiting for the first host, {self.options.head} port {self.options.port}")
            time.sleep(2)

    def lost(self) -> Optional[str]:
        """Which rank is gone, or None; says to all, once a second, that this one is there. Takes a second at most."""
        readable, _writable, _broken = select.select(list(self.links.values()), [], [], 1)
        now = time.monotonic()
        # Not in answer to each message: two that answer each other would never rest.
        due = now - self.said >= 1
        if due:
            self.said = now
        for name, link in self.links.items():
            try:
                if link in readable:
                    if not link.recv(4096):
                        return name
                    self.heard[name] = now
                if due:
                    link.sendall(b".")
            except OSError:
                return name
            if now - self.heard[name] > SILENCE_SECONDS:
                return name
        return None


def node(options: argparse.Namespace) -> int:
    """Run the engine as one rank of several; ends with its status, or with 75 when another rank is gone."""
    stopping = threading.Event()

    def stop(_number: int, _frame: object) -> None:
        if not started:
            sys.exit(0)
        stopping.set()

    started = False
    signal.signal(signal.SIGTERM, stop)
    environment = dict(os.environ)
    name = serve_filter.interface_of(options.own, serve_filter.listing())
    if options.find_interface:
        say(f"NCCL and Gloo talk over {name}, which has {options.own}")
        environment.update(NCCL_SOCKET_IFNAME=name, GLOO_SOCKET_IFNAME=name)
    peers = Peers(options)
    peers.meet()
    say(f"all {options.count} ranks are there")
    started = True
    child = subprocess.Popen(options.command, env=environment)
    try:
        return with_peers(options, child, peers, stopping)
    finally:
        if child.poll() is None:
            end(child, options.stop)


def with_peers(
    options: argparse.Namespace, child: subprocess.Popen[bytes], peers: Peers, stopping: threading.Event
) -> int:
    """The rank's status: its engine's, or 75 when another rank is gone. Raises FilterError for a container outside."""
    inside = not options.container
    while child.poll() is None and not stopping.is_set():
        gone = peers.lost()
        if gone:
            say(f"FAILED: {gone} is gone; stopping this one, so that all start together")
            return PEER_LOST
        if not inside:
            inside = serve_filter.admitted(options.slice, options.container, options.peer)
    if child.poll() is None:
        end(child, options.stop)
    code = int(child.returncode)
    return code if code >= 0 else 128 - code


def end(child: subprocess.Popen[bytes], seconds: float) -> None:
    """Ask a process to end, and kill it when it does not in time."""
    child.terminate()
    try:
        child.wait(seconds)
    except subprocess.TimeoutExpired:
        child.kill()
        child.wait()


# --- command line -----------------------------------------------------------------------------------------------


def network_arguments(parser: argparse.ArgumentParser) -> None:
    """Where the filter is, and who it lets in."""
    parser.add_argument("--slice", required=True, help="systemd slice of the replica")
    parser.add_argument("--peer", action="append", default=[], help="address of a host of the replica")


def parse(argv: list[str]) -> argparse.Namespace:
    """The command line of the verbs."""
    parser = argparse.ArgumentParser(description=__doc__)
    verbs = parser.add_subparsers(dest="verb", required=True)
    for verb in ("prestart", "ready", "poststop"):
        sub = verbs.add_parser(verb)
        sub.add_argument("--container", help="name; none on bare metal")
        if verb != "poststop":
            network_arguments(sub)
            sub.add_argument("--address", required=True)
            sub.add_argument("--port", type=int, required=True)
            sub.add_argument("--wait", type=int, required=True, help="seconds")
        if verb != "ready":
            sub.add_argument("--unit", required=True)
        if verb == "prestart":
            # CDI names, device files or folders, and the files that this start is made from.
            for name in ("device", "node", "stamp"):
                sub.add_argument(f"--{name}", action="append", default=[])
            sub.add_argument("--gpus", type=int, required=True, help="of the host")
        if verb == "ready":
            sub.add_argument("--model", required=True)
            sub.add_argument("--secret", required=True, help="0600 file with the API key")
    verbs.add_parser("answered").add_argument("--unit", required=True)
    sub = verbs.add_parser("node")
    sub.add_argument("--container", help="name; none on bare metal")
    network_arguments(sub)
    sub.add_argument("--own", required=True, help="address of this host, as the others reach it")
    for name in ("rank", "count", "port", "stop"):
        sub.add_argument(f"--{name}", type=int, required=True)
    sub.add_argument("--head", required=True, help="address of the first host")
    sub.add_argument("--find-interface", action="store_true")
    sub.add_argument("command", nargs="+", help="the engine, after --")
    return parser.parse_args(argv)


def main(argv: list[str]) -> int:
    """Run one verb; 0 or 1 as systemd wants it."""
    options = parse(argv)
    verbs = {"prestart": prestart, "answered": answered, "poststop": poststop}
    try:
        if options.verb == "node":
            return node(options)
        if options.verb == "ready":
            ready(options, int(os.environ["MAINPID"]))
        else:
            verbs[options.verb](options)
    except (GuardError, serve_filter.FilterError, OSError) as exc:
        say(f"FAILED: {exc}")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
