"""Makes whole logs of failed starts with the real engines on the CPU, for tests/unit/serve/test_failed_starts.py.

    make failed-starts                                   # all of them, one after the other: an hour on two cores
    make failed-starts ARGS="vllm tensor-missing"        # one

Every case of ``cases.py`` is started as the unit starts it (the engine's own program, standard error into the log),
with one thing wrong. The log goes to ``tests/unit/serve/failed_starts/<engine>/<case>.log.gz`` with the paths and the
name of this machine made neutral; its last line is ``exit status N``, as systemd counts it. Needs root (namespaces, a
control group with a memory limit). A start that does not fail is an error: its log is not kept.
"""

from __future__ import annotations

import contextlib
import gzip
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

from cases import CASES, MIB, Case

from simulator.engines import tiny_glm, trees
from simulator.settings import Settings
from tests.engines import cpu_start

ROOT = Path(__file__).resolve().parents[3]

LOGS = ROOT / "tests/unit/serve/failed_starts"
PATIENCE_SECONDS = 420
CGROUP = Path("/sys/fs/cgroup/memory/glm-failed-starts")


def words(case: Case, engine: str, fills: dict[str, str]) -> list[str]:
    """The engine's arguments: those of every start, without what the case leaves out, and its own last."""
    base, found = list(cpu_start.WORDS[engine]), []
    while base:
        word = base.pop(0)
        if word in case.without:
            if base and not base[0].startswith("--"):
                base.pop(0)
            continue
        found.append(case.model if word == "{model}" else word)
    given = [word.format(**fills) for word in (*found, *case.arguments)]
    return given


@contextlib.contextmanager
def taken_port(wanted: bool) -> Iterator[int]:
    """A port that is free, or one that this process listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        if wanted:
            probe.listen()
            yield port
            return
    yield port


def confined(case: Case, argv: list[str], fills: dict[str, str]) -> list[str]:
    """The command in a namespace with a small file system, and in a control group with a memory limit."""
    # The shell stays as process 1, like the container's --init: as process 1 SGLang survives its own SIGKILL.
    script = '"$@"; exit $?'
    if case.small:
        script = f"mount -t tmpfs -o size=64k tmpfs {case.small.format(**fills)} && {script}"
    if case.memory:
        CGROUP.mkdir(exist_ok=True)
        (CGROUP / "memory.limit_in_bytes").write_text(str(case.memory * MIB))
        script = f"echo $$ > {CGROUP}/cgroup.procs && {script}"
    return ["unshare", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc", "sh", "-c", script, "sh", *argv]


def kill_when(case: Case, log: Path, pid: int) -> bool:
    """Kill the process of the case once its line is there; whether it was done."""
    line, title = case.kill or ("", "")
    if not re.search(line, log.read_text("utf-8", "replace")):
        return False
    for child in descendants(pid):
        with contextlib.suppress(OSError):
            name = Path(f"/proc/{child}/cmdline").read_bytes().replace(b"\0", b" ").decode("utf-8", "replace")
            if re.search(title, name):
                os.kill(child, signal.SIGKILL)
                return True
    return False


def descendants(pid: int) -> list[int]:
    """Processes below one, nearest last."""
    try:
        children = [int(word) for word in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    except OSError:
        return []
    return [found for child in children for found in (*descendants(child), child)]


def healthy(port: int) -> bool:
    with contextlib.suppress(OSError, ValueError), urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=2):
        return True
    return False


def ask(port: int) -> None:
    """One chat; that nothing comes back is what is wanted."""
    body = {"model": "glm-5.1-fp8", "messages": [{"role": "user", "content": "Say hello."}], "max_tokens": 64}
    url, headers = f"http://127.0.0.1:{port}/v1/chat/completions", {"Content-Type": "application/json"}
    request = urllib.request.Request(url, data=json.dumps(body).encode(), headers=headers)
    with contextlib.suppress(OSError, ValueError), urllib.request.urlopen(request, timeout=60):
        pass


def kernel_lines(since: float) -> list[str]:
    """What the kernel wrote about killed processes since then (its clock: seconds since boot)."""
    done = subprocess.run(["dmesg"], capture_output=True, text=True, check=False)
    found = []
    for row in done.stdout.splitlines():
        match = re.match(r"\[\s*([\d.]+)\] (.*)", row)
        if match and float(match.group(1)) >= since and re.search(r"oom|[Oo]ut of memory|Killed process", row):
            found.append(f"kernel: {match.group(2)}")
    return found


def neutral(text: str, replaced: dict[str, str]) -> str:
    for old, new in sorted(replaced.items(), key=lambda pair: -len(pair[0])):
        text = text.replace(old, new)
    return re.sub(r"\b(?:10|172|192)\.\d+\.\d+\.\d+\b", "192.0.2.10", text)


def start(case: Case, engine: str, tree: Path, folder: Path) -> tuple[str, int]:
    """Start the engine once; its whole log and the exit status. Raises RuntimeError for one that does not fail."""
    model, scratch, log = folder / "model", folder / "scratch", folder / "log"
    scratch.mkdir()
    tiny_glm.write(model)
    if case.change:
        case.change(model)
    python = cpu_start.python()
    since = time.clock_gettime(time.CLOCK_MONOTONIC)
    with taken_port(case.taken) as port:
        fills = {"model": str(model), "port": str(port), "scratch": str(scratch)}
        argv = confined(case, [python, *words(case, engine, fills)], fills)
        given = {name: value.format(**fills) for name, value in case.environ.items()}
        environ = {**cpu_start.environment(folder, tree), **given}
        with log.open("wb") as output:
            process = subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=output, stderr=output, env=environ)
        try:
            status = follow(case, process, log, port)
        finally:
            process.kill()
            process.wait()
    text = read(log, folder, tree, python)
    return "\n".join([*text.splitlines(), *kernel_lines(since)]) + "\n", status


def read(log: Path, folder: Path, tree: Path, python: str) -> str:
    """A log with the paths and the name of this machine made neutral."""
    paths = {str(folder / "model"): "/model", str(folder): "/root", str(tree): "/usr/lib/python3/dist-packages"}
    paths[str(Path(python).resolve().parents[1])] = "/usr"
    paths[socket.gethostname()] = "gpu-1"
    return neutral(log.read_text("utf-8", "replace").replace("\r", "\n"), paths)


def follow(case: Case, process: subprocess.Popen[bytes], log: Path, port: int) -> int:
    """Wait for the end; the exit status as systemd and docker count it."""
    deadline, killed = time.monotonic() + PATIENCE_SECONDS, case.kill is None
    while process.poll() is None:
        if time.monotonic() > deadline:
            raise RuntimeError(f"no end after {PATIENCE_SECONDS} s:\n{log.read_text('utf-8', 'replace')[-2000:]}")
        if not case.taken and healthy(port):
            if case.chat:
                ask(port)
                continue
            raise RuntimeError("the engine serves; this start was meant to fail")
        killed = killed or kill_when(case, log, process.pid)
        time.sleep(0.5)
    return 128 - process.returncode if process.returncode < 0 else process.returncode


def main(arguments: list[str]) -> int:
    engines = arguments[:1] or list(CASES)
    cache, failures = Settings.from_environment().cache_dir, 0
    for engine in engines:
        tree = trees.build_tree(cache, engine)
        for case in CASES[engine]:
            if arguments[1:] and case.name not in arguments[1:]:
                continue
            began, folder = time.monotonic(), Path(tempfile.mkdtemp(prefix="glm-failed-start-"))
            try:
                text, status = start(case, engine, tree, folder)
            except RuntimeError as error:
                failures += 1
                print(f"{engine} {case.name}: {error}", flush=True)
                continue
            finally:
                shutil.rmtree(folder, ignore_errors=True)
            path = LOGS / engine / f"{case.name}.log.gz"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(gzip.compress(f"{text}exit status {status}\n".encode(), mtime=0))
            seconds = time.monotonic() - began
            print(f"{engine} {case.name}: {len(text.splitlines())} lines, exit {status}, {seconds:.0f} s", flush=True)
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
