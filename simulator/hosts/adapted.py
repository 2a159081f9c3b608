"""Bare hosts from an image of somebody else, such as ``ubuntu:24.04``, where a registry can be reached.

The image needs apt. A container of it installs what our own bare images have, and is kept as an image; the name of that
follows the image it was made of, so one that was pulled anew is adapted anew.
"""

from __future__ import annotations

import dataclasses
import re
import shlex

from simulator.hosts.images import RECIPES, Recipe, has_image, image_tag, overlay_tar
from simulator.hosts.podman import Podman
from simulator.settings import Settings
from simulator.support import RehearsalError, locked, step

_REFERENCE = re.compile(r"[A-Za-z0-9][\w./:-]*[:@][\w.:-]+")
_OVERLAY = "/run/glm-rehearsal-overlay.tar"


def is_reference(name: str) -> bool:
    """Whether ``name`` is an image with its tag or digest, which no recipe's name has."""
    return _REFERENCE.fullmatch(name) is not None


def adapted_recipe(reference: str) -> Recipe:
    """What our own bare image has, over ``reference`` in the place of a Debian suite."""
    name = re.sub(r"[^a-z0-9]+", "-", reference.lower().partition("@")[0]).strip("-")
    return dataclasses.replace(RECIPES["bare-trixie"], name=name, suite=reference)


def adapting_script(recipe: Recipe) -> str:
    """What the container runs, as root, with the overlay's archive at hand."""
    packages = shlex.join(recipe.packages)
    return "\n".join(
        (
            "command -v apt-get >/dev/null || { echo 'the image has no apt-get' >&2; exit 1; }",
            "export DEBIAN_FRONTEND=noninteractive",
            "apt-get update",
            f"apt-get install --yes --no-install-recommends {packages}",
            # Images for single programs keep daemons from being started; a host starts them.
            "rm -f /usr/sbin/policy-rc.d",
            f"tar --extract --no-same-owner --file={_OVERLAY} --directory=/",
            # Ubuntu's image has this user already, without a home that would be ours.
            "if id -u ubuntu >/dev/null 2>&1; then userdel ubuntu && rm -rf /home/ubuntu; fi",
            *recipe.commands,
            f"systemctl mask --quiet {' '.join(recipe.masked_units)}",
            # Each host makes its own at its first boot; the id would be taken from D-Bus's copy.
            "rm -f /etc/ssh/ssh_host_* /var/lib/dbus/machine-id",
            ": > /etc/machine-id",
        )
    )


def run_arguments(recipe: Recipe, container: str, overlay: str) -> list[str]:
    """podman's arguments for the container that becomes the image. It fetches packages as this machine does."""
    options = (f"--name={container}", "--network=host", "--pull=never", "--entrypoint=")
    mount = f"--volume={overlay}:{_OVERLAY}:ro"
    return ["run", *options, mount, recipe.suite, "/bin/sh", "-ec", adapting_script(recipe)]


def ensure_adapted_image(settings: Settings, podman: Podman, reference: str) -> str:
    """Pull and adapt an image unless that is done; return the tag of ours. Safe to interrupt and to run twice at once.

    An image that the local store has is taken as it is there. Raises RehearsalError.
    """
    recipe = adapted_recipe(reference)
    directory = settings.cache_dir / "rootfs"
    with locked(directory / f"{recipe.name}.lock"):
        # Named by all that goes in: the image as it is now, and what is done to it.
        base = _image_id(podman, reference)
        tag = image_tag(dataclasses.replace(recipe, suite=base, commands=(adapting_script(recipe),)))
        if has_image(podman, tag):
            return tag
        container = f"glm-rehearsal-build-{recipe.name}"
        overlay = directory / f"{recipe.name}.overlay.tar"
        overlay.write_bytes(overlay_tar(recipe))
        remove = ("rm", "--force", "--ignore", "--time=0", container)
        podman.run(*remove)
        try:
            with step(f"make a host image of {reference}"):
                podman.run(*run_arguments(recipe, container, str(overlay)), timeout=1200)
                changes = ('--change=CMD ["/sbin/init"]', "--change=ENTRYPOINT []")
                podman.run("commit", "--quiet", *changes, container, tag)
        finally:
            podman.run(*remove)
            overlay.unlink()
    return tag


def _image_id(podman: Podman, reference: str) -> str:
    ask = ("image", "inspect", "--format={{.Id}}", reference)
    try:
        return podman.run(*ask).strip()
    except RehearsalError:
        with step(f"pull {reference}"):
            _pull(podman, reference)
    return podman.run(*ask).strip()


def _pull(podman: Podman, reference: str) -> None:
    try:
        podman.run("pull", "--quiet", reference, timeout=1200)
    except RehearsalError as error:
        raise RehearsalError(
            f"expected an image of this machine or of a registry that it reaches, found none: {error}\nNext: name it "
            "with its registry, or pull it with podman first"
        ) from error
