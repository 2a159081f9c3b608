"""The local image registry from which rehearsal hosts pull the engine images by their published names.

Debian's ``docker-registry`` listens on the controller's bridge address only. Docker in the hosts reaches it through its
ordinary setting ``registry-mirrors``. Content lies in the cache folder, so a later rehearsal pushes nothing again.
"""

from __future__ import annotations

import json
import os
import urllib.error
import urllib.request
from pathlib import Path

from simulator.services import Service
from simulator.settings import Settings
from simulator.support import RehearsalError, locked, run, step, write_atomically

_PROGRAM = "docker-registry"
_MANIFESTS = "application/vnd.oci.image.manifest.v1+json, application/vnd.oci.image.index.v1+json"
_NO_PROXY = urllib.request.build_opener(urllib.request.ProxyHandler({}))


def service(settings: Settings) -> Service:
    """Write the registry's configuration and describe how to run it."""
    storage = settings.cache_dir / "registry"
    storage.mkdir(parents=True, exist_ok=True)
    config = settings.state_dir / "registry.json"
    secret_file = settings.state_dir / "registry.secret"
    if not secret_file.is_file():
        write_atomically(secret_file, os.urandom(16).hex(), 0o600)
    # YAML, of which JSON is a part.
    document = {
        "version": "0.1",
        "log": {"level": "warn", "accesslog": {"disabled": True}},
        "storage": {"filesystem": {"rootdirectory": str(storage)}},
        "http": {"addr": settings.registry, "secret": secret_file.read_text("utf-8")},
    }
    write_atomically(config, json.dumps(document, indent=1), 0o600)
    return Service(
        "registry", (_PROGRAM, "serve", str(config)), f"http://{settings.registry}/v2/", "GLM_REHEARSAL_REGISTRY_PORT"
    )


def push(settings: Settings, layout: Path, reference: str) -> str:
    """Copy an image from an OCI layout into the registry unless it is there; return its digest.

    ``reference`` is ``repository:tag``. Raises RehearsalError when the layout has not exactly one image.
    """
    digest = layout_digest(layout)
    # Registries of all worlds have their content in one folder.
    with locked(settings.cache_dir / "registry.lock"):
        if registry_digest(settings, reference) != digest:
            _copy(settings, layout, reference, digest)
    return digest


def _copy(settings: Settings, layout: Path, reference: str, digest: str) -> None:
    with step(f"push {reference} to {settings.registry}"):
        run(
            [
                "skopeo",
                "--insecure-policy",
                "copy",
                "--quiet",
                "--preserve-digests",
                "--dest-tls-verify=false",
                f"oci:{layout}",
                f"docker://{settings.registry}/{reference}",
            ],
            timeout=600,
        )
        stored = registry_digest(settings, reference)
        if stored != digest:
            raise RehearsalError(f"the registry has {stored or 'nothing'} under {reference}, expected {digest}")


def layout_digest(layout: Path) -> str:
    """Digest of the one image in an OCI layout."""
    try:
        manifests = json.loads((layout / "index.json").read_text("utf-8"))["manifests"]
    except (OSError, ValueError, KeyError) as error:
        raise RehearsalError(f"{layout} is not an OCI image layout: {error}") from error
    if len(manifests) != 1:
        raise RehearsalError(f"{layout}: expected one image, found {len(manifests)}")
    return str(manifests[0]["digest"])


def registry_digest(settings: Settings, reference: str) -> str | None:
    """Digest that the registry has for ``repository:tag``, or None when it does not have it."""
    repository, _, tag = reference.rpartition(":")
    url = f"http://{settings.registry}/v2/{repository}/manifests/{tag}"
    request = urllib.request.Request(url, method="HEAD", headers={"Accept": _MANIFESTS})
    try:
        with _NO_PROXY.open(request, timeout=10) as answer:
            return str(answer.headers["Docker-Content-Digest"])
    except urllib.error.HTTPError as error:
        if error.code == 404:
            return None
        raise RehearsalError(f"{url} answered {error.code}") from error
    except OSError as error:
        raise RehearsalError(f"{url}: {error}") from error
