"""Where the rehearsal keeps things, and on which addresses it listens.

Every value has a default that works on one machine. GLM_REHEARSAL_WORLD numbers rehearsals that live side by side: each
has its own state folder, networks, subnets and ports. The other variables named here change single values.
"""

from __future__ import annotations

import dataclasses
import hashlib
import ipaddress
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

CHECKOUT = Path(__file__).resolve().parent.parent

API_KEY = "rehearsal-key"
"""What the Lambda Cloud API simulator accepts. It opens nothing outside this machine."""

SSH_KEY_NAME = "rehearsal"

ENGINE_IMAGES = {"vllm": "vllm/vllm-openai:v0.32.0", "sglang": "lmsysorg/sglang:v0.5.10"}
"""The image that the catalogue's default recipe of each engine names."""

MODEL_REPOSITORIES = ("zai-org/GLM-5.1-FP8",)
"""Repositories under which the hub serves the tiny checkpoint."""


LAST_WORLD = 99
"""Two subnets below 10.89.0.0/16 for each world."""


@dataclass(frozen=True)
class Settings:
    """Paths, ports and subnets of one rehearsal.

    ``state_dir`` is this rehearsal's own (pid files, logs, keys, what the hosts mount); ``cache_dir`` is shared by all
    rehearsals of a user and holds what is expensive to build. Hosts get one address in each subnet, with the same last
    number; the controller has number 1 in both. ``podman_store`` is a folder for podman's containers that no other
    rehearsal sees; None: they are where podman keeps those of the machine. ``mounts`` are further volumes of each host.
    """

    state_dir: Path
    cache_dir: Path
    public_subnet: ipaddress.IPv4Network
    private_subnet: ipaddress.IPv4Network
    api_port: int
    hub_port: int
    registry_port: int
    world: int = 0
    podman_store: Path | None = None
    mounts: tuple[str, ...] = ()

    @classmethod
    def from_environment(cls, environ: Mapping[str, str] = os.environ) -> Settings:
        """Read GLM_CACHE_DIR, GLM_REHEARSAL_{WORLD,DIR,MOUNTS,{PUBLIC,PRIVATE}_SUBNET,{API,HUB,REGISTRY}_PORT}.

        Raises ValueError naming the variable that cannot be used.
        """
        world = _world(environ)
        state = CHECKOUT / ".rehearsal"
        return cls(
            state_dir=_path(environ, "GLM_REHEARSAL_DIR", state / f"world-{world}" if world else state),
            cache_dir=_path(environ, "GLM_CACHE_DIR", Path("~/.cache/glm-fleet")),
            public_subnet=_subnet(environ, "GLM_REHEARSAL_PUBLIC_SUBNET", f"10.89.{10 + 2 * world}.0/24"),
            private_subnet=_subnet(environ, "GLM_REHEARSAL_PRIVATE_SUBNET", f"10.89.{11 + 2 * world}.0/24"),
            # inventories/rehearsal computes the port of the API in the same way.
            api_port=_port(environ, "GLM_REHEARSAL_API_PORT", 8430 + 10 * world),
            hub_port=_port(environ, "GLM_REHEARSAL_HUB_PORT", 8431 + 10 * world),
            registry_port=_port(environ, "GLM_REHEARSAL_REGISTRY_PORT", 5001 + 10 * world),
            world=world,
            mounts=tuple((environ.get("GLM_REHEARSAL_MOUNTS") or "").split()),
        )

    def with_state_dir(self, path: Path) -> Settings:
        """The same rehearsal with its own state elsewhere."""
        return dataclasses.replace(self, state_dir=path.expanduser().resolve())

    def with_api_port(self, port: int) -> Settings:
        """The same rehearsal with its Lambda Cloud API on another port."""
        return dataclasses.replace(self, api_port=port)

    @property
    def owner(self) -> str:
        """Marks containers and volumes as this rehearsal's, so that taking it down leaves others alone."""
        return hashlib.sha256(str(self.state_dir).encode()).hexdigest()[:12]

    @property
    def networks(self) -> dict[str, ipaddress.IPv4Network]:
        """Subnet by name of the network, the public one first."""
        prefix = f"glm-rehearsal-{self.world}" if self.world else "glm-rehearsal"
        return {f"{prefix}-public": self.public_subnet, f"{prefix}-private": self.private_subnet}

    @property
    def gateway(self) -> str:
        """The controller's address as the hosts see it."""
        return str(self.public_subnet[1])

    @property
    def api_url(self) -> str:
        return f"http://127.0.0.1:{self.api_port}"

    @property
    def hub_url(self) -> str:
        return f"http://{self.gateway}:{self.hub_port}"

    @property
    def registry(self) -> str:
        """``host:port`` of the local image registry."""
        return f"{self.gateway}:{self.registry_port}"

    @property
    def ssh_key(self) -> Path:
        return self.state_dir / "id_ed25519"

    @property
    def engines_dir(self) -> Path:
        """Engine trees that every host mounts read-only instead of unpacking its own copy."""
        return self.cache_dir / "engines"


def _world(environ: Mapping[str, str]) -> int:
    text = environ.get("GLM_REHEARSAL_WORLD") or "0"
    if not text.isdigit() or int(text) > LAST_WORLD:
        raise ValueError(f"GLM_REHEARSAL_WORLD: expected a number from 0 to {LAST_WORLD}, found {text!r}")
    return int(text)


def _path(environ: Mapping[str, str], name: str, default: Path) -> Path:
    return Path(environ.get(name) or default).expanduser().resolve()


def _subnet(environ: Mapping[str, str], name: str, default: str) -> ipaddress.IPv4Network:
    text = environ.get(name) or default
    try:
        network = ipaddress.IPv4Network(text)
    except ValueError as error:
        raise ValueError(f"{name}: expected an IPv4 subnet such as {default}, found {text!r}: {error}") from error
    if network.num_addresses < 32:
        raise ValueError(f"{name}: expected a subnet of at least 32 addresses, found {text!r}")
    return network


def _port(environ: Mapping[str, str], name: str, default: int) -> int:
    text = environ.get(name) or str(default)
    if not text.isdigit() or not 1024 <= int(text) <= 65535:
        raise ValueError(f"{name}: expected a port between 1024 and 65535, found {text!r}")
    return int(text)
