"""The rented world as a whole: build it, start it, take it down, say how it is."""

from __future__ import annotations

import json
import shutil
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from simulator import registry
from simulator.hosts.backend import IMAGE
from simulator.hosts.images import ensure_image
from simulator.hosts.machines import Machines
from simulator.hosts.podman import Podman, require_podman
from simulator.services import Service, Services, module
from simulator.settings import API_KEY, MODEL_REPOSITORIES, SSH_KEY_NAME, Settings
from simulator.support import RehearsalError, as_root, locked, run, step, write_atomically

SERVICES = ("registry", "hub", "lambda-api")
_NO_PROXY = urllib.request.build_opener(urllib.request.ProxyHandler({}))


def build(settings: Settings, references: Sequence[str]) -> tuple[str, list[tuple[Path, str]]]:
    """Build the host image, and for each engine image its engine, its sources and its OCI layout, where missing.

    Returns (host image tag, [(layout, reference)]).
    """
    # The engines' builder needs more than hosts and services do; molecule tests go without it.
    from simulator.engines import images, trees

    require_podman()
    tag = ensure_image(settings, Podman(settings), IMAGE)
    if not references:
        return tag, []
    wanted = images.versions(references)
    for family in sorted({family for family, _ in wanted}):
        with step(f"engine tree {family}"):
            trees.build_tree(settings.cache_dir, family)
    with step("engine sources"):
        trees.fetch_sources(settings.cache_dir, wanted)
    with step("engine images"):
        layouts = images.build_images(settings.cache_dir, list(references))
    return tag, layouts


def up(settings: Settings, references: Sequence[str]) -> None:
    """Start everything that ``-i rehearsal`` needs; what runs already is left alone."""
    started = time.monotonic()
    settings.state_dir.mkdir(parents=True, exist_ok=True)
    with locked(settings.state_dir / ".lock"):
        tag, layouts = build(settings, references)
        services = Services(settings)
        machines = Machines(settings)
        with step("open the hosts' networks"):
            machines.open_gateway(tag)
        for name in machines.start_stopped(["instance"]):
            print(f"started {name}, which had stopped", file=sys.stderr)
        _start(services, registry.service(settings))
        for layout, reference in layouts:
            registry.push(settings, layout, reference)
        _start(services, _hub(settings))
        _start(services, _lambda_api(settings))
        with step("register the ssh key"):
            _register_key(settings, _make_key(settings))
        _write_variables(settings)
    print(f"The rehearsal is up ({time.monotonic() - started:.1f} s). Next:", file=sys.stderr)
    print("  ansible-playbook deploy_glm51.yml -i rehearsal", file=sys.stderr)


def down(settings: Settings) -> None:
    """Stop the services and remove the hosts and everything else that this rehearsal made, except logs and caches."""
    if not settings.state_dir.is_dir():
        print(f"nothing to stop in {settings.state_dir}", file=sys.stderr)
        return
    services = Services(settings)
    with locked(settings.state_dir / ".lock"):
        # The API first: nothing can be launched any more while the hosts go.
        for name in reversed(SERVICES):
            if services.stop(name):
                print(f"stopped {name}", file=sys.stderr)
        if shutil.which("podman"):
            machines = Machines(settings)
            with step("remove hosts and networks"):
                removed = machines.remove_all(["instance", "gateway"])
                machines.podman.release()
            print(f"removed {len(removed)} containers", file=sys.stderr)
        for path in _made_by_up(settings):
            _remove(path)


def status(settings: Settings) -> str:
    """A table of the services and hosts."""
    services = Services(settings)
    urls = {
        "registry": f"http://{settings.registry}",
        "hub": settings.hub_url,
        "lambda-api": settings.api_url,
    }
    rows = [("SERVICE", "STATE", "PID", "ADDRESS", "LOG")]
    for name in SERVICES:
        pid = services.running(name)
        rows.append((name, "running" if pid else "stopped", str(pid or "-"), urls[name], str(services.log(name))))
    table = [_table(rows)]
    if shutil.which("podman"):
        hosts = Machines(settings).hosts()
        table.append(
            _table(
                [("HOST", "KIND", "STATE", "PUBLIC", "PRIVATE", "SSH")]
                + [
                    (host.name, host.kind, host.state, host.ip, host.private_ip, "yes" if host.ssh_answers() else "no")
                    for host in hosts
                ]
            )
        )
    return "\n\n".join(table)


def _table(rows: Sequence[tuple[str, ...]]) -> str:
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    lines = ("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) for row in rows)
    return "\n".join(line.rstrip() for line in lines)


def _made_by_up(settings: Settings) -> list[Path]:
    names = ("hosts", "hub", "state", "run", "file-systems")
    files = ("lambda.json", "vars.yml", "known_hosts", ".known_hosts.lock", "glm.lock.yml", ".glm.lock.yml.lock",
             "glm.starts.json", "registry.json", "registry.secret", "api_key",
             settings.ssh_key.name, f"{settings.ssh_key.name}.pub")  # fmt: skip
    return [*(settings.state_dir / name for name in (*names, *files)), ledger_folder(settings)]


def ledger_folder(settings: Settings) -> Path:
    """Where the collection keeps ledgers of this simulated cloud (``folder_for`` in module_utils/cloud/ledger.py)."""
    place = settings.api_url.rpartition("/")[2].replace(":", "-")
    return Path("~/.local/state/glm-fleet/ledger/loopback").expanduser() / place


def _remove(path: Path) -> None:
    try:
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)
    except PermissionError:
        # Hosts wrote there as users of their own.
        run([*as_root(), "rm", "-rf", "--one-file-system", str(path)])


def _start(services: Services, service: Service) -> None:
    with step(f"start {service.name} at {service.url}"):
        services.start(service)


def _hub(settings: Settings) -> Service:
    tiny = [f"--with-tiny={name}" for name in MODEL_REPOSITORIES]
    repositories = str(settings.state_dir / "hub")
    listen = f"{settings.gateway}:{settings.hub_port}"
    argv = module("simulator.hub", "--listen", listen, "--repos", repositories, *tiny)
    return Service("hub", argv, settings.hub_url, "GLM_REHEARSAL_HUB_PORT")


def _lambda_api(settings: Settings) -> Service:
    key_file = settings.state_dir / "api_key"
    write_atomically(key_file, API_KEY + "\n", 0o600)
    argv = module(
        "simulator.lambda_cloud",
        f"--listen=127.0.0.1:{settings.api_port}",
        f"--state={settings.state_dir / 'lambda.json'}",
        f"--api-key-file={key_file}",
        "--backend=podman",
    )
    return Service("lambda-api", argv, f"{settings.api_url}/api/v1/regions", "GLM_REHEARSAL_API_PORT")


def _make_key(settings: Settings) -> str:
    """The rehearsal's ssh key, made once; returns the public key."""
    public = settings.ssh_key.with_suffix(".pub")
    if not settings.ssh_key.is_file() or not public.is_file():
        settings.ssh_key.unlink(missing_ok=True)
        run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "rehearsal", "-f", str(settings.ssh_key)])
    return public.read_text("utf-8").strip()


def _register_key(settings: Settings, public_key: str) -> None:
    keys = _call(settings, "GET", "/ssh-keys")
    for key in keys:
        if key["name"] == SSH_KEY_NAME:
            if key["public_key"].split()[:2] == public_key.split()[:2]:
                return
            _call(settings, "DELETE", f"/ssh-keys/{key['id']}")
    _call(settings, "POST", "/ssh-keys", {"name": SSH_KEY_NAME, "public_key": public_key})


def _call(settings: Settings, method: str, path: str, body: dict[str, str] | None = None) -> Any:
    """One call of the simulated API; waits as long as the answer demands when it is rate-limited."""
    request = urllib.request.Request(
        f"{settings.api_url}/api/v1{path}",
        method=method,
        data=None if body is None else json.dumps(body).encode(),
        headers={"Authorization": f"Bearer {API_KEY}", "Content-Type": "application/json"},
    )
    for _ in range(10):
        try:
            with _NO_PROXY.open(request, timeout=30) as answer:
                return json.load(answer)["data"]
        except urllib.error.HTTPError as error:
            if error.code != 429:
                raise RehearsalError(f"{method} {path}: {error.code} {error.read().decode()[:500]}") from error
            time.sleep(float(error.headers.get("Retry-After") or 1))
        except (OSError, ValueError) as error:
            raise RehearsalError(f"{method} {request.full_url}: {error}") from error
    raise RehearsalError(f"{method} {path}: still rate-limited after 10 attempts")


def _write_variables(settings: Settings) -> None:
    """What inventories/rehearsal cannot know: addresses and paths, which the environment may have changed."""
    values = {
        "api_url": settings.api_url,
        "hub_url": settings.hub_url,
        "registry_mirror": f"http://{settings.registry}",
        "ssh_private_key": str(settings.ssh_key),
        "state_dir": str(settings.state_dir),
    }
    # JSON scalars are YAML scalars.
    text = "".join(f"{key}: {json.dumps(value)}\n" for key, value in values.items())
    write_atomically(settings.state_dir / "vars.yml", "# Written by `python -m simulator up`.\n" + text)
