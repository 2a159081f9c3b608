"""Root file systems of rehearsal hosts: recipes, and building each of them once.

A recipe is packages from Debian plus a folder of files under ``rootfs/``. The image is named by a hash of all that, so
an edited recipe is a new image and an unchanged one is never built twice.
"""

from __future__ import annotations

import hashlib
import io
import tarfile
from dataclasses import dataclass
from pathlib import Path

from simulator.hosts.podman import Podman
from simulator.settings import Settings
from simulator.support import RehearsalError, as_root, locked, run_logged, step

ROOTFS = Path(__file__).resolve().parent / "rootfs"
_FORMAT = 1
"""Raised when the way of building changes, so that old images are not taken for new ones."""

_BARE_PACKAGES = (
    "ca-certificates",
    "curl",
    "dbus",
    "gpg",
    "iproute2",
    "kmod",
    "openssh-server",
    "procps",
    "python3",
    "python3-apt",
    "sudo",
    "systemd",
    "systemd-sysv",
)
# Units that would reach for the real machine through a privileged container, or that only cost time there.
_MASKED_UNITS = (
    "apt-daily-upgrade.timer",
    "apt-daily.timer",
    "console-getty.service",
    "dev-hugepages.mount",
    "fstrim.timer",
    "getty@.service",
    "sys-fs-fuse-connections.mount",
    "sys-kernel-config.mount",
    "sys-kernel-debug.mount",
    "sys-kernel-tracing.mount",
    "systemd-modules-load.service",
    "systemd-sysctl.service",
    "systemd-udevd.service",
)


@dataclass(frozen=True)
class Recipe:
    """How one image is made. ``overlays`` are folders below ``rootfs/``, applied in order; ``commands`` run in it."""

    name: str
    suite: str
    packages: tuple[str, ...]
    overlays: tuple[str, ...]
    commands: tuple[str, ...] = ()
    masked_units: tuple[str, ...] = _MASKED_UNITS


_ADD_UBUNTU = (
    "useradd --create-home --shell /bin/bash ubuntu",
    "install -d -m 0700 -o ubuntu -g ubuntu /home/ubuntu/.ssh",
    "systemctl enable rehearsal-host-keys.service",
)

RECIPES = {
    recipe.name: recipe
    for recipe in (
        Recipe("bare-trixie", "trixie", _BARE_PACKAGES, ("bare",), _ADD_UBUNTU),
        Recipe("bare-bookworm", "bookworm", _BARE_PACKAGES, ("bare",), _ADD_UBUNTU),
        Recipe(
            "gpu-base",
            "trixie",
            (*_BARE_PACKAGES, "cloud-init", "docker-cli", "docker.io", "haproxy", "iptables"),
            ("gpu-base",),
            (
                "systemctl enable rehearsal-accelerators.service nvidia-persistenced.service "
                "nvidia-fabricmanager.service nvidia-cdi-refresh.service rehearsal-limits.service",
                # As on a host without the package: only the front door runs HAProxy.
                "systemctl disable haproxy.service",
            ),
        ),
    )
}


def overlay_tar(recipe: Recipe) -> bytes:
    """The recipe's files as a tar archive that is the same on every machine: root's, 0755 or 0644, no times."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.PAX_FORMAT) as archive:
        for overlay in recipe.overlays:
            base = ROOTFS / overlay
            for path in sorted(base.rglob("*")):
                if path.is_dir() or "__pycache__" in path.parts:
                    continue
                content = path.read_bytes()
                member = tarfile.TarInfo("./" + path.relative_to(base).as_posix())
                member.size = len(content)
                member.mode = 0o755 if path.stat().st_mode & 0o100 else 0o644
                archive.addfile(member, io.BytesIO(content))
    return buffer.getvalue()


def image_tag(recipe: Recipe) -> str:
    """The local image name, which changes with anything that goes into the image."""
    digest = hashlib.sha256(repr((_FORMAT, recipe)).encode() + overlay_tar(recipe)).hexdigest()
    return f"localhost/glm-rehearsal/{recipe.name}:{digest[:16]}"


def find_recipe(name: str) -> Recipe:
    """Raises RehearsalError that lists the known names."""
    try:
        return RECIPES[name]
    except KeyError:
        known = ", ".join(sorted(RECIPES))
        raise RehearsalError(f"unknown host image {name!r}; expected one of {known}") from None


def ensure_image(settings: Settings, podman: Podman, name: str) -> str:
    """Build and import an image unless it is there; return its tag. Safe to interrupt and to run twice at once."""
    recipe = find_recipe(name)
    tag = image_tag(recipe)
    if has_image(podman, tag):
        return tag
    directory = settings.cache_dir / "rootfs"
    with locked(directory / f"{name}.lock"):
        if has_image(podman, tag):
            return tag
        archive = directory / f"{name}-{tag.rpartition(':')[2]}.tar"
        if not archive.is_file():
            with step(f"build the {name} host image with mmdebstrap"):
                _build(recipe, archive)
        with step(f"import the {name} host image"):
            podman.run("import", '--change=CMD ["/sbin/init"]', str(archive), tag)
    return tag


def has_image(podman: Podman, tag: str) -> bool:
    """Whether the local store has the image."""
    return bool(podman.run("images", "--quiet", "--filter", f"reference={tag}").strip())


def _build(recipe: Recipe, archive: Path) -> None:
    directory = archive.parent
    overlay = directory / f"{recipe.name}.overlay.tar"
    overlay.write_bytes(overlay_tar(recipe))
    scratch = directory / f"{recipe.name}.partial.tar"
    hooks = [f"tar-in {overlay} /", *(f'chroot "$1" {command}' for command in recipe.commands)]
    hooks.append(f'chroot "$1" systemctl mask --quiet {" ".join(recipe.masked_units)}')
    # Host keys made at package installation would be the same on all hosts; each host makes its own at first boot.
    hooks.append('rm -f "$1"/etc/ssh/ssh_host_*')
    run_logged(
        [
            *as_root(),
            "mmdebstrap",
            "--variant=minbase",
            f"--include={','.join(recipe.packages)}",
            *(f"--dpkgopt=path-exclude=/usr/share/{part}/*" for part in ("doc", "locale", "man")),
            *(f"--customize-hook={hook}" for hook in hooks),
            recipe.suite,
            str(scratch),
        ],
        directory / f"{recipe.name}.log",
    )
    scratch.replace(archive)
    overlay.unlink()
