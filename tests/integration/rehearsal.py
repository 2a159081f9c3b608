"""What tests of a whole rehearsal type and read: the commands of a user, the hosts over ssh, the endpoints."""

from __future__ import annotations

import functools
import json
import os
import re
import ssl
import subprocess
import time
import urllib.error
import urllib.request
from dataclasses import dataclass
from pathlib import Path

from simulator.settings import Settings

ROOT = Path(__file__).parents[2]
STATE = Settings.from_environment().state_dir
HOSTS = 2


@dataclass
class Run:
    """What one command printed, and how it ended."""

    code: int
    output: str
    seconds: float

    def changed(self) -> dict[str, int]:
        """Changed tasks by host, from the play recap."""
        return {host: int(n) for host, n in re.findall(r"^(\S+)\s+: ok=\d+\s+changed=(\d+)", self.output, re.M)}


def command(*argv: str, timeout: float = 3600) -> Run:
    """``timeout`` is for what hangs."""
    start = time.monotonic()
    inventory.cache_clear()
    done = subprocess.run(
        argv,
        cwd=ROOT,
        env={**os.environ, "ANSIBLE_CONFIG": str(ROOT / "ansible.cfg"), "ANSIBLE_NOCOLOR": "1"},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=timeout,
        check=False,
    )
    print(done.stdout)
    return Run(done.returncode, done.stdout, time.monotonic() - start)


# Variables of every playbook of a file, which its fixture sets.
ALWAYS: dict[str, object] = {}


def playbook(name: str, *arguments: str, **variables: object) -> Run:
    given = {**ALWAYS, **variables}
    extra = ["-e", json.dumps(given)] if given else []
    return command("ansible-playbook", name, "-i", "rehearsal", *extra, *arguments)


@functools.cache
def inventory() -> dict[str, dict[str, object]]:
    """Host variables of the fleet, by host, since the last command."""
    listed = subprocess.run(
        ["ansible-inventory", "-i", "rehearsal", "--list"],
        cwd=ROOT,
        env={**os.environ, "ANSIBLE_CONFIG": str(ROOT / "ansible.cfg")},
        capture_output=True,
        text=True,
        check=True,
    )
    data = json.loads(listed.stdout)
    return {host: data["_meta"]["hostvars"][host] for host in data.get("glm_fleet", {}).get("hosts", [])}


def root_on(host: str) -> list[str]:
    """How a command is run as root on a rehearsal host, over ssh."""
    variables = inventory()[host]
    return [
        "ssh", "-i", str(STATE / "id_ed25519"), "-o", "BatchMode=yes", "-o", "LogLevel=ERROR",
        "-o", "StrictHostKeyChecking=no", "-o", "UserKnownHostsFile=/dev/null",
        f"{variables.get('ansible_user', 'ubuntu')}@{variables['ansible_host']}", "sudo",
    ]  # fmt: skip


def on_host(host: str, *argv: str) -> str:
    """What a command, run as root on a rehearsal host, prints."""
    done = subprocess.run([*root_on(host), *argv], capture_output=True, text=True, check=False)
    return done.stdout + done.stderr


def fleet_json() -> dict[str, list[dict[str, object]]]:
    found: dict[str, list[dict[str, object]]] = json.loads((STATE / "state/reports/fleet.json").read_text("utf-8"))
    return found


def reports() -> dict[str, dict[str, object]]:
    return {str(report["host"]): report for report in fleet_json()["hosts"]}


def gateways() -> dict[str, str]:
    """Where the gateways are that the last run brought up, by host."""
    return {str(one["host"]): str(one["url"]) for one in fleet_json()["gateways"]}


def ask(url: str, key: str | None, body: dict[str, object] | None = None) -> tuple[int, dict[str, object]]:
    headers = {"Content-Type": "application/json", **({"Authorization": f"Bearer {key}"} if key else {})}
    request = urllib.request.Request(url, json.dumps(body).encode() if body else None, headers)
    try:
        # Of the system's authorities none signed it.
        trust = ssl.create_default_context(cafile=str(STATE / "state/tls/ca.pem"))
        with urllib.request.urlopen(request, timeout=900, context=trust) as answer:
            return answer.status, json.load(answer)
    except urllib.error.HTTPError as error:
        return error.code, {}


def check_endpoints(reasoning_field: str) -> None:
    """Do what the README's curl does, and what a client would do next, at every endpoint."""
    key = (STATE / "state/api_key").read_text(encoding="utf-8").strip()
    for report in reports().values():
        url = report["endpoint"]["url"]
        status, models = ask(f"{url}/models", key)
        assert status == 200 and [m["id"] for m in models["data"]] == ["glm-5.1-fp8"]
        assert ask(f"{url}/models", None)[0] == 401
        body = {"model": "glm-5.1-fp8", "messages": [{"role": "user", "content": "Hello"}], "max_tokens": 64}
        status, answer = ask(f"{url}/chat/completions", key, body)
        message = answer["choices"][0]["message"]
        assert status == 200 and message["content"] and message[reasoning_field]


def refused(run: Run, *words: str) -> None:
    assert run.code != 0
    flat = " ".join(run.output.split())
    for word in words:
        assert word in flat, f"{word!r} is not in the output"


def running_containers() -> dict[str, str]:
    return {h: on_host(h, "docker", "inspect", "--format", "{{.Id}}", "glm-serve-0").strip() for h in inventory()}
