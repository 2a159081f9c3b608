"""The command line of the rehearsal: ``python -m simulator up | down | status | build | hosts …``.

Progress goes to stderr, results to stdout. Every command may be interrupted and run again.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path

from simulator import world
from simulator.hosts.accelerators import declare
from simulator.hosts.adapted import is_reference
from simulator.hosts.images import RECIPES
from simulator.hosts.machines import Machines
from simulator.hosts.manual import ManualHost, create
from simulator.hosts.podman import require_podman
from simulator.settings import ENGINE_IMAGES, Settings
from simulator.support import RehearsalError

_HOST_IMAGES = f"one of {', '.join(sorted(RECIPES))}, or an image with its tag, such as ubuntu:24.04"


def parser() -> argparse.ArgumentParser:
    """The verbs and their options."""
    result = argparse.ArgumentParser(prog="python -m simulator", description="A simulated cloud on this machine.")
    verbs = result.add_subparsers(dest="verb", required=True)

    up = verbs.add_parser("up", help="build missing images and start everything that `-i rehearsal` needs")
    _add_engines(up)
    up.add_argument("--api-port", type=int, metavar="PORT", help="port of the Lambda Cloud API (on 127.0.0.1)")
    build = verbs.add_parser("build", help="build missing images and start nothing")
    _add_engines(build)
    verbs.add_parser("down", help="stop the services and remove this rehearsal's hosts, volumes, networks and state")
    verbs.add_parser("status", help="show services and hosts")

    single = verbs.add_parser("hosts", help="single hosts, for tests of roles")
    hosts = single.add_subparsers(dest="action", required=True)
    new = hosts.add_parser("create", help="boot a host, wait for ssh, print {name, ip, private_ip}")
    new.add_argument("--image", required=True, type=_host_image, metavar="NAME", help=_HOST_IMAGES)
    new.add_argument("--name", required=True)
    new.add_argument("--ssh-key", type=Path, required=True, metavar="FILE", help="public key file for user ubuntu")
    new.add_argument("--accelerators", metavar="NAME:COUNT:GB", help="declare accelerators, e.g. B200:8:180 (gpu-base)")
    new.add_argument("--user-data", type=Path, metavar="FILE", help="cloud-init user data (gpu-base)")
    gone = hosts.add_parser("destroy", help="remove hosts made by `hosts create`")
    gone.add_argument("names", nargs="*", metavar="NAME")
    gone.add_argument("--all", action="store_true", help="all hosts that `hosts create` made from this checkout")
    hosts.add_parser("list", help="print all hosts of this rehearsal as JSON")
    return result


def _host_image(text: str) -> str:
    if text not in RECIPES and not is_reference(text):
        raise argparse.ArgumentTypeError(f"found {text}, expected {_HOST_IMAGES}")
    return text


def _add_engines(verb: argparse.ArgumentParser) -> None:
    verb.add_argument(
        "--engines",
        type=_engines,
        default=list(ENGINE_IMAGES),
        metavar="NAME[,NAME]",
        help=f"engines to prepare, out of {', '.join(ENGINE_IMAGES)} (default: all); 'none' prepares none",
    )
    verb.add_argument("--image", action="append", default=[], metavar="REPOSITORY:TAG", help="one more engine image")


def _engines(text: str) -> list[str]:
    names = [] if text == "none" else text.split(",")
    unknown = sorted(set(names) - set(ENGINE_IMAGES))
    if unknown:
        raise argparse.ArgumentTypeError(f"unknown engine {', '.join(unknown)}; known: {', '.join(ENGINE_IMAGES)}")
    return names


def main(argv: Sequence[str] | None = None) -> int:
    """Run one verb; returns the exit status: 0, 1 after an error, 130 when interrupted."""
    arguments = parser().parse_args(argv)
    try:
        settings = Settings.from_environment()
        if getattr(arguments, "api_port", None):
            settings = settings.with_api_port(arguments.api_port)
        _dispatch(arguments, settings)
    except (RehearsalError, ValueError) as error:
        print(f"simulator {arguments.verb}: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print(f"simulator {arguments.verb}: interrupted; run it again to continue", file=sys.stderr)
        return 130
    return 0


def _dispatch(arguments: argparse.Namespace, settings: Settings) -> None:
    if arguments.verb == "up":
        world.up(settings, _references(arguments))
    elif arguments.verb == "build":
        world.build(settings, _references(arguments))
    elif arguments.verb == "down":
        world.down(settings)
    elif arguments.verb == "status":
        print(world.status(settings))
    elif arguments.action == "create":
        require_podman()
        print(json.dumps(create(settings, _manual_host(arguments))))
    elif arguments.action == "destroy":
        _destroy(settings, arguments.names, arguments.all)
    else:
        rows = [host.to_json() for host in Machines(settings).hosts()]
        print(json.dumps(rows, indent=1))


def _references(arguments: argparse.Namespace) -> list[str]:
    return list(dict.fromkeys([*(ENGINE_IMAGES[name] for name in arguments.engines), *arguments.image]))


def _manual_host(arguments: argparse.Namespace) -> ManualHost:
    accelerators = None
    if arguments.accelerators:
        name, count, memory = _accelerators(arguments.accelerators)
        accelerators = declare(name, count, memory)
    return ManualHost(
        name=arguments.name,
        image=arguments.image,
        public_key=arguments.ssh_key.expanduser().read_text("utf-8").strip(),
        accelerators=accelerators,
        user_data=arguments.user_data.read_text("utf-8") if arguments.user_data else None,
    )


def _accelerators(text: str) -> tuple[str, int, int]:
    parts = text.split(":")
    if len(parts) != 3 or not parts[1].isdigit() or not parts[2].isdigit():
        raise ValueError(f"--accelerators: expected NAME:COUNT:GB such as B200:8:180, found {text!r}")
    return parts[0], int(parts[1]), int(parts[2])


def _destroy(settings: Settings, names: list[str], everything: bool) -> None:
    machines = Machines(settings)
    if everything:
        machines.remove_all(["manual"])
    for name in names:
        machines.destroy(name)
    machines.remove_all([])
