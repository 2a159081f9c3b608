# Copyright (c) 2026, glm.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Which image serves a plan: variant, driver, transformers, digest; and what derived images are called."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from typing import Optional

from ansible_collections.glm.fleet.plugins.module_utils import versions
from ansible_collections.glm.fleet.plugins.plugin_utils.plan import lockfile
from ansible_collections.glm.fleet.plugins.plugin_utils.plan.choice import Choice
from ansible_collections.glm.fleet.plugins.plugin_utils.plan.schema import ImageBuild, ImageChosen

# A registry's host may have a port; Docker's rule for the rest.
_REFERENCE = re.compile(
    r"(?P<repository>(?:[A-Za-z0-9][A-Za-z0-9.-]*(?::\d+)?/)?[a-z0-9]+(?:[._-]+[a-z0-9]+)*(?:/[a-z0-9]+(?:[._-]+[a-z0-9]+)*)*)"
    r"(?::(?P<tag>\w[\w.-]{0,127}))?(?:@(?P<digest>sha256:[0-9a-f]{64}))?",
    re.ASCII,
)


def image(choice: Choice, lock: lockfile.LockData) -> ImageChosen:
    """The ``image`` of a plan. Raises PlanError when none is known, or the host's driver is too old for it."""
    if choice.intent.image:
        return _own(choice, choice.intent.image, lock)
    found = choice.images(choice.version)
    if not found:
        _refuse_unknown(choice)
    variant = choice.intent.image_variant or next(iter(found))
    if variant not in found:
        choice.refuse(
            f"{choice.engine.name} {choice.version} has no image variant {variant!r} for {choice.accelerator.name}",
            f"set glm_image_variant to one of {', '.join(found)}, or leave it empty",
        )
    drivers = {name: _min_driver(choice, name) for name in found}
    _check_driver(choice, variant, drivers)
    base = lockfile.image_key(found[variant].repository or choice.engine.image, found[variant].tag)
    build = _build(choice, variant, base)
    built_for = choice.known.variants[variant]
    name, digest = _pinned(base, build, lock)
    repository, _colon, tag = name.rpartition(":")
    return {
        "repository": repository,
        "tag": tag,
        "digest": digest,
        "variant": variant,
        "cuda": built_for.version if built_for.runtime == "cuda" else None,
        "rocm": built_for.version if built_for.runtime == "rocm" else None,
        "min_driver": drivers[variant],
        "reference": _reference(name, digest),
        "min_transformers": choice.model.min_transformers,
        "build": build,
    }


def _own(choice: Choice, reference: str, lock: lockfile.LockData) -> ImageChosen:
    """The image that the user names. It is taken as it comes: nothing is built from it."""
    match = _REFERENCE.fullmatch(reference)
    if not match or not (match["tag"] or match["digest"]):
        choice.refuse(
            f"glm_image: expected repository:tag, repository@sha256:<64 hex digits> or both, found {reference!r}",
            "correct glm_image",
        )
    if not choice.intent.engine_version:
        choice.refuse(
            f"glm_image: which release of {choice.engine.title} {reference} is based on decides which flags it takes",
            "set glm_engine_version to that release",
        )
    repository, digest = match["repository"], match["digest"]
    # What has no tag of its own still needs a name on its hosts.
    tag = match["tag"] or f"sha256-{digest[len('sha256:') :][:12]}"
    variant = choice.intent.image_variant or _variant_of(choice, tag)
    built_for = choice.known.variants.get(variant) if variant else None
    if variant and (built_for is None or not choice.suits(built_for)):
        suited = [name for name, known in choice.known.variants.items() if choice.suits(known)]
        choice.refuse(
            f"glm_image: variant {variant!r} is none for {choice.accelerator.name}",
            f"set glm_image_variant to one of {', '.join(suited)}, or leave it empty",
        )
    entry = lock["images"].get(lockfile.image_key(repository, tag))
    digest = digest or (entry["digest"] if entry else None)
    needed = {variant: _min_driver(choice, variant)}
    _check_driver(choice, variant, needed)
    return {
        "repository": repository,
        "tag": tag,
        "digest": digest,
        "variant": variant,
        "cuda": built_for.version if built_for and built_for.runtime == "cuda" else None,
        "rocm": built_for.version if built_for and built_for.runtime == "rocm" else None,
        "min_driver": needed[variant],
        "reference": _reference(f"{repository}:{tag}", digest),
        "min_transformers": choice.model.min_transformers,
        "build": None,
    }


def _variant_of(choice: Choice, tag: str) -> str:
    """The variant whose published tag this is, as in a mirror; empty where no published image is called so."""
    images = choice.images(choice.version).items()
    return next((name for name, image in images if image.tag == tag), "")


def _pinned(base: str, build: Optional[ImageBuild], lock: lockfile.LockData) -> tuple[str, Optional[str]]:
    """Name and digest that the lock file has: of the derived image where it names one, else of the published one."""
    derived = lock["builds"].get(lockfile.build_key(build["base"], build["packages"])) if build else None
    if derived:
        return derived["image"], derived.get("digest")
    published = lock["images"].get(base)
    return base, published["digest"] if published else None


def named(image: ImageChosen, name: str, digest: Optional[str]) -> ImageChosen:
    """The image under that name (repository:tag), by its digest where there is one.

    A derived image has none without a registry: every host then builds it from the locked list.
    """
    repository, _colon, tag = name.rpartition(":")
    return {**image, "repository": repository, "tag": tag, "digest": digest, "reference": _reference(name, digest)}


def _reference(name: str, digest: Optional[str]) -> str:
    return f"{name.rpartition(':')[0]}@{digest}" if digest else name


def derived_name(registry: str, base: str, digest: str, requirements: Mapping[str, Sequence[str]]) -> str:
    """Name and tag of the image that adds ``requirements`` (by machine) to ``base`` (repository:tag) at ``digest``.

    The tag ends in a checksum of both: another list never gets the name of an image that hosts run already.
    """
    repository, _colon, tag = base.rpartition(":")
    content = json.dumps([digest, {machine: sorted(lines) for machine, lines in requirements.items()}], sort_keys=True)
    checksum = hashlib.sha256(content.encode()).hexdigest()[:12]
    prefix = f"{registry.strip('/')}/" if registry else ""
    return f"{prefix}glm-fleet/{repository.rpartition('/')[2]}:{tag}-{checksum}"


def locked(image: ImageChosen) -> bool:
    """Whether the ``image`` of a plan is the same on every host of the fleet."""
    build = image["build"]
    return bool(image["digest"]) if not build else f"{image['repository']}:{image['tag']}" != build["base"]


def _refuse_unknown(choice: Choice) -> None:
    engine, wants = choice.engine, choice.model.engines[choice.engine.name]
    lowest = versions.order(wants.min_version)
    usable = [version for version in engine.versions if versions.order(version) >= lowest and choice.images(version)]
    if not usable:
        choice.refuse(f"no published image of {engine.name} for {choice.accelerator.name} is known")
    best = wants.recommended if wants.recommended in usable else usable[-1]
    choice.refuse(
        f"no published image of {engine.name} {choice.version} is known",
        f"set glm_engine_version to {best} (images are known for {', '.join(usable)}), or glm_image to an image of it",
    )


def newer_packages(choice: Choice) -> list[str]:
    """What a release needs beyond what it asks for itself to know the model, such as ``transformers==5.4.0``.

    Raises PlanError when nothing is known that helps.
    """
    below = choice.engine.versions[choice.version].transformers.below
    if below is None or versions.order(below) > versions.order(choice.model.min_transformers):
        return []
    fix = choice.engine.transformers_fix
    if fix is None or versions.order(fix) < versions.order(choice.model.min_transformers):
        choice.refuse(
            f"it holds transformers older than {below}, but {choice.model.name} needs "
            f"{choice.model.min_transformers} or newer",
            f"set glm_engine_version to {choice.model.engines[choice.engine.name].recommended}",
        )
    return [f"transformers=={fix}"]


def _build(choice: Choice, variant: str, base: str) -> Optional[ImageBuild]:
    """What has to be added to the image before it can serve the model; None when it can as it comes."""
    if variant in choice.model.engines[choice.engine.name].images.get(choice.version, {}):
        return None
    packages = newer_packages(choice)
    return {"base": base, "packages": packages} if packages else None


def _min_driver(choice: Choice, variant: str) -> Optional[str]:
    """The newer of what the image and the accelerator need; None when neither is published."""
    built_for = choice.known.variants.get(variant)
    needs = [built_for.min_driver if built_for else None, choice.accelerator.min_driver]
    known = [driver for driver in needs if driver is not None]
    return max(known, key=versions.order) if known else None


def _check_driver(choice: Choice, variant: str, drivers: Mapping[str, Optional[str]]) -> None:
    driver, needed = choice.intent.driver_version, drivers[variant]
    if driver is None or needed is None or versions.order(driver) >= versions.order(needed):
        return
    older = [
        name for name, needs in drivers.items() if needs is None or versions.order(driver) >= versions.order(needs)
    ]
    remedy = (
        f"set glm_image_variant to {older[0]} (CUDA {choice.known.variants[older[0]].version}), or upgrade the driver"
        if older
        else f"upgrade the driver to {min((d for d in drivers.values() if d), key=versions.order)} or newer"
    )
    # An image of the user's own that does not say what it is built for needs what the accelerator needs.
    needs_it = f"the image's CUDA {choice.known.variants[variant].version}" if variant else choice.accelerator.name
    choice.refuse(f"the host has driver {driver}, {needs_it} needs {needed} or newer", remedy)
