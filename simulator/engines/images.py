"""Writes the engine images as OCI layouts: Debian 12, Python 3.11, huggingface_hub, and the front door.

The images answer to the published names (``vllm/vllm-openai:v0.32.0``, ``lmsysorg/sglang:v0.5.10``) in the rehearsal's
own registry. They hold no engine: the host's CDI device mounts the engine trees, as it mounts the driver in the rented
world. The same inputs give the same digests. Layers are written directly, without a container engine:

1. the root file system (mmdebstrap), shared by all images;
2. huggingface_hub and what it needs, by family;
3. the front door and the family's command.
"""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import platform
import re
import shutil
import tarfile
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from simulator.engines import front_door, trees
from simulator.support import RehearsalError, as_root, locked, run_logged, step, write_atomically

HERE = Path(__file__).resolve().parent

REPOSITORIES = {"vllm/vllm-openai": "vllm", "lmsysorg/sglang": "sglang"}
SUITE = "bookworm"
PACKAGES = ("bash", "ca-certificates", "libgomp1", "libnuma1", "libstdc++6", "procps", "python3")

_EPOCH = 1767225600  # 2026-01-01: every file and image carries this time, so digests depend on content only
_CREATED = "2026-01-01T00:00:00Z"
_LIBRARY = "opt/glm-rehearsal/lib"
_ENGINES = "opt/glm-rehearsal/engines"
_OCI = "application/vnd.oci.image"


@dataclass(frozen=True)
class Layer:
    """A gzipped tar in the blob store: its file, digest of the gzip, digest of the tar."""

    path: Path
    digest: str
    diff_id: str

    def descriptor(self) -> dict[str, Any]:
        return {"mediaType": f"{_OCI}.layer.v1.tar+gzip", "digest": self.digest, "size": self.path.stat().st_size}


@dataclass(frozen=True)
class Image:
    """An image asked for by reference, and what its tag says about the engine."""

    reference: str
    family: str
    version: str

    @classmethod
    def parse(cls, reference: str) -> Image:
        """Read ``[docker.io/]repository:tag``. Raises RehearsalError for unknown repositories and unversioned tags."""
        repository, _, tag = reference.removeprefix("docker.io/").partition(":")
        if repository not in REPOSITORIES:
            known = ", ".join(sorted(REPOSITORIES))
            raise RehearsalError(f"image {reference!r}: the rehearsal stands in for {known} only")
        version = re.match(r"v?(\d+\.\d+\.\d+(?:\.post\d+)?)(?![\w.])", tag)
        if version is None:
            raise RehearsalError(
                f"image {reference!r}: the tag {tag!r} names no engine version, so it is not known whose command line "
                "it takes; use a tag such as v0.32.0"
            )
        return cls(f"{repository}:{tag}", REPOSITORIES[repository], version.group(1))

    @property
    def folder(self) -> str:
        return re.sub(r"[^\w.]+", "-", self.reference)


def versions(references: Iterable[str]) -> list[tuple[str, str]]:
    """(family, engine version) of each reference: the sources that `trees.fetch_sources` must have."""
    images = [Image.parse(reference) for reference in references]
    return sorted({(image.family, image.version) for image in images})


def build_images(cache: Path, tags: list[str]) -> list[tuple[Path, str]]:
    """Write one OCI layout for each reference; push it with ``skopeo copy oci:<path> docker://<registry>/<reference>``.

    Args:
        cache: the cache folder; layouts go to ``<cache>/engines/images/``.
        tags: references such as ``vllm/vllm-openai:v0.32.0``.

    Returns:
        (folder of the layout, reference) in the order of ``tags``.

    Raises:
        RehearsalError: unknown repository, unversioned tag, or a build step that failed (names its log).
    """
    images = [Image.parse(tag) for tag in tags]
    root = cache / "engines" / "images"
    with locked(root / ".lock"):
        base = _base_layer(root)
        packages = {family: _packages_layer(root, family) for family in {image.family for image in images}}
        built = []
        for image in images:
            layers = [base, packages[image.family], _front_layer(root, image.family)]
            built.append((_write_layout(root, image, layers), image.reference))
        return built


def _base_layer(root: Path) -> Layer:
    """The root file system, built once for its package list."""

    def build(scratch: Path) -> bytes:
        archive = scratch / "rootfs.tar"
        with step(f"root file system of the engine images ({SUITE})"):
            run_logged(
                [
                    *as_root(),
                    "env",
                    f"SOURCE_DATE_EPOCH={_EPOCH}",
                    "mmdebstrap",
                    "--variant=minbase",
                    f"--include={','.join(PACKAGES)}",
                    *(f"--dpkgopt=path-exclude=/usr/share/{part}/*" for part in ("doc", "info", "locale", "man")),
                    SUITE,
                    str(archive),
                ],
                root / "rootfs.log",
            )
        return archive.read_bytes()

    return _cached_layer(root, "base", repr((SUITE, PACKAGES, _EPOCH, platform.machine())), build)


def _packages_layer(root: Path, family: str) -> Layer:
    """huggingface_hub with the versions the engine itself uses, as published images have it beside the engine."""
    requirements = trees.ENGINES[family].requirements

    def build(scratch: Path) -> bytes:
        target = scratch / "site"
        with step(f"huggingface_hub for the {family} image"):
            python = trees.make_venv(scratch / "venv")
            run_logged(
                [
                    str(python),
                    *("-m", "pip", "install", "--quiet", "--no-compile", "--disable-pip-version-check"),
                    *("--target", str(target), "--constraint", str(requirements), "huggingface_hub"),
                ],
                root / f"packages-{family}.log",
            )
        files = {
            f"usr/local/lib/python3.11/dist-packages/{path.relative_to(target)}": (path.read_bytes(), 0o644)
            for path in target.rglob("*")
            # pip records where it installed to, which is a path of the building machine.
            if path.is_file() and path.name not in ("RECORD", "direct_url.json") and target / "bin" not in path.parents
        }
        return _tar(files)

    return _cached_layer(root, f"packages-{family}", requirements.read_text("utf-8"), build)


def _front_layer(root: Path, family: str) -> Layer:
    """Our own files: small, so they are packed anew each time."""
    module = f"{_LIBRARY}/simulator"
    files = {
        f"{module}/__init__.py": (b"", 0o644),
        f"{module}/engines/__init__.py": (b"", 0o644),
        f"{module}/engines/front_door.py": ((HERE / "front_door.py").read_bytes(), 0o644),
        f"{module}/engines/parser_loader.py": ((HERE / "parser_loader.py").read_bytes(), 0o644),
        f"{_LIBRARY}/sitecustomize.py": ((HERE / "image" / "sitecustomize.py").read_bytes(), 0o644),
        f"usr/local/bin/{family}": ((HERE / "image" / "command").read_bytes(), 0o755),
    }
    return _store_layer(root, _tar(files, folders=(_ENGINES, "workspace")))


def _tar(files: dict[str, tuple[bytes, int]], folders: tuple[str, ...] = ()) -> bytes:
    """A tar of the files with their modes and of all their folders, owned by root, all at the fixed time."""
    parents = {str(parent) for name in files for parent in Path(name).parents}
    for folder in folders:
        parents |= {folder, *map(str, Path(folder).parents)}
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.PAX_FORMAT) as archive:
        for name in sorted((parents - {"."}) | set(files)):
            member = tarfile.TarInfo(name)
            member.mtime = _EPOCH
            if name in files:
                content, member.mode = files[name]
                member.size = len(content)
                archive.addfile(member, io.BytesIO(content))
            else:
                member.type, member.mode = tarfile.DIRTYPE, 0o755
                archive.addfile(member)
    return buffer.getvalue()


def _cached_layer(root: Path, name: str, inputs: str, build: Any) -> Layer:
    """The layer recorded for these inputs, or a new one from ``build(scratch folder) -> tar``."""
    key = hashlib.sha256(inputs.encode()).hexdigest()[:16]
    record = root / f"{name}-{key}.json"
    if record.is_file():
        known = json.loads(record.read_text("utf-8"))
        layer = Layer(_blob(root, known["digest"]), known["digest"], known["diff_id"])
        if layer.path.is_file():
            return layer
    scratch = root / f".build-{name}"
    shutil.rmtree(scratch, ignore_errors=True)
    scratch.mkdir(parents=True)
    try:
        layer = _store_layer(root, build(scratch))
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    write_atomically(record, json.dumps({"digest": layer.digest, "diff_id": layer.diff_id}) + "\n")
    return layer


def _store_layer(root: Path, tar: bytes) -> Layer:
    packed = gzip.compress(tar, compresslevel=3, mtime=0)
    digest = _store(root, packed)
    return Layer(_blob(root, digest), digest, _sha256(tar))


def _write_layout(root: Path, image: Image, layers: list[Layer]) -> Path:
    """An OCI layout whose blobs are links into the common store."""
    config = json.dumps(_config(image, layers), sort_keys=True).encode()
    manifest = {
        "schemaVersion": 2,
        "mediaType": f"{_OCI}.manifest.v1+json",
        "config": {"mediaType": f"{_OCI}.config.v1+json", "digest": _store(root, config), "size": len(config)},
        "layers": [layer.descriptor() for layer in layers],
    }
    packed = json.dumps(manifest, sort_keys=True).encode()
    index = {
        "schemaVersion": 2,
        "mediaType": f"{_OCI}.index.v1+json",
        "manifests": [
            {
                "mediaType": f"{_OCI}.manifest.v1+json",
                "digest": _store(root, packed),
                "size": len(packed),
                "annotations": {"org.opencontainers.image.ref.name": image.reference.partition(":")[2]},
            }
        ],
    }
    layout = root / image.folder
    blobs = layout / "blobs" / "sha256"
    shutil.rmtree(layout, ignore_errors=True)
    blobs.mkdir(parents=True)
    for digest in (_sha256(config), _sha256(packed), *(layer.digest for layer in layers)):
        name = digest.partition(":")[2]
        (blobs / name).hardlink_to(_blob(root, digest))
    (layout / "oci-layout").write_text('{"imageLayoutVersion": "1.0.0"}\n', "utf-8")
    (layout / "index.json").write_text(json.dumps(index, sort_keys=True) + "\n", "utf-8")
    return layout


def _config(image: Image, layers: list[Layer]) -> dict[str, Any]:
    tree = front_door.TREES[image.family]
    environ = {
        "GLM_REHEARSAL_ENGINE": image.family,
        "GLM_REHEARSAL_VERSION": image.version,
        "LANG": "C.UTF-8",
        "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
        "PYTHONPATH": f"/{_LIBRARY}:/{_ENGINES}/{tree}",
        "PYTHONUNBUFFERED": "1",
    }
    command: dict[str, Any] = {"Cmd": ["/bin/bash"]} if image.family == "sglang" else {"Entrypoint": ["vllm", "serve"]}
    return {
        "architecture": {"x86_64": "amd64", "aarch64": "arm64"}.get(platform.machine(), platform.machine()),
        "os": "linux",
        "created": _CREATED,
        "config": {
            "Env": [f"{name}={value}" for name, value in sorted(environ.items())],
            "WorkingDir": "/workspace",
            "Labels": {
                "org.opencontainers.image.title": image.reference,
                "org.opencontainers.image.description": f"REHEARSAL stand-in: {tree} on a CPU behind "
                f"the command line of {image.family} {image.version}",
            },
            **command,
        },
        "rootfs": {"type": "layers", "diff_ids": [layer.diff_id for layer in layers]},
        "history": [{"created": _CREATED, "created_by": "simulator/engines/images.py"} for _ in layers],
    }


def _sha256(data: bytes) -> str:
    return "sha256:" + hashlib.sha256(data).hexdigest()


def _blob(root: Path, digest: str) -> Path:
    return root / "blobs" / digest.partition(":")[2]


def _store(root: Path, data: bytes) -> str:
    """Put data into the blob store; returns its digest."""
    digest = _sha256(data)
    path = _blob(root, digest)
    if not path.is_file():
        path.parent.mkdir(parents=True, exist_ok=True)
        scratch = path.with_suffix(".partial")
        scratch.write_bytes(data)
        scratch.replace(path)
    return digest
