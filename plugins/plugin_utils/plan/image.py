# Copyright (c) 2026, glm.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Which image serves a plan: variant, driver, transformers, digest."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Optional

from ansible_collections.glm.fleet.plugins.module_utils import versions
from ansible_collections.glm.fleet.plugins.plugin_utils.plan import lockfile
from ansible_collections.glm.fleet.plugins.plugin_utils.plan.choice import Choice


def image(choice: Choice, lock: Mapping[str, Any]) -> dict[str, Any]:
    """The ``image`` of a plan. Raises PlanError when none is known, or the host's driver is too old for it."""
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
    repository = found[variant].repository or choice.engine.image
    tag = found[variant].tag
    build = _build(choice, variant, f"{repository}:{tag}")
    entry = (lock.get("images") or {}).get(f"{repository}:{tag}") or {}
    digest = entry.get("digest")
    built_for = choice.known.variants[variant]
    made = {
        "repository": repository,
        "tag": tag,
        "digest": digest,
        "variant": variant,
        "cuda": built_for.version if built_for.runtime == "cuda" else None,
        "rocm": built_for.version if built_for.runtime == "rocm" else None,
        "min_driver": drivers[variant],
        "reference": f"{repository}@{digest}" if digest else f"{repository}:{tag}",
        "min_transformers": choice.model.min_transformers,
        "build": build,
    }
    return {**made, **_derived(build, lock)}


def _derived(build: Optional[Mapping[str, Any]], lock: Mapping[str, Any]) -> dict[str, Any]:
    """What stands instead of the base once the lock file names the image built from it."""
    if build is None:
        return {}
    entry = (lock.get("builds") or {}).get(lockfile.build_key(build["base"], build["packages"]))
    return derived_image(entry) if entry else {}


def derived_image(entry: Mapping[str, Any]) -> dict[str, Any]:
    """``repository``, ``tag``, ``digest`` and ``reference`` of a plan for an entry of the lock file's builds.

    Without a registry every host builds the image from the locked list, and it has a name but no common digest.
    """
    repository, _colon, tag = str(entry["image"]).rpartition(":")
    digest = entry.get("digest")
    reference = f"{repository}@{digest}" if digest else f"{repository}:{tag}"
    return {"repository": repository, "tag": tag, "digest": digest, "reference": reference}


def locked(image: Mapping[str, Any]) -> bool:
    """Whether the ``image`` of a plan is the same on every host of the fleet."""
    build = image.get("build")
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
        f"set glm_engine_version to {best} (images are known for {', '.join(usable)})",
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


def _build(choice: Choice, variant: str, base: str) -> Optional[dict[str, Any]]:
    """What has to be added to the image before it can serve the model; None when it can as it comes."""
    if variant in choice.model.engines[choice.engine.name].images.get(choice.version, {}):
        return None
    packages = newer_packages(choice)
    return {"base": base, "packages": packages} if packages else None


def _min_driver(choice: Choice, variant: str) -> Optional[str]:
    """The newer of what the image and the accelerator need; None when neither is published."""
    needs = [choice.known.variants[variant].min_driver, choice.accelerator.min_driver]
    known = [driver for driver in needs if driver is not None]
    return max(known, key=versions.order) if known else None


def _check_driver(choice: Choice, variant: str, drivers: Mapping[str, Optional[str]]) -> None:
    driver, needed = choice.intent.driver_version, drivers[variant]
    if driver is None or needed is None or versions.order(driver) >= versions.order(needed):
        return
    older = [
        name for name, needs in drivers.items() if needs is None or versions.order(driver) >= versions.order(needs)
    ]
    version = choice.known.variants[variant].version
    remedy = (
        f"set glm_image_variant to {older[0]} (CUDA {choice.known.variants[older[0]].version}), or upgrade the driver"
        if older
        else f"upgrade the driver to {min((d for d in drivers.values() if d), key=versions.order)} or newer"
    )
    choice.refuse(f"the host has driver {driver}, the image's CUDA {version} needs {needed} or newer", remedy)
