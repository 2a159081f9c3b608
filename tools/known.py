"""Add the image digests and model commits of a lock file to ``catalog/known.yml``.

    .venv/bin/python tools/known.py --source "who deployed it, where, when" glm.lock.yml

Take the lock file of a fleet that passed verify. A tag that the catalogue has with another digest, or a commit with
another list of files, is refused: one of the two is wrong, and nothing here can say which. Entries of moving tags
(nightly, latest, main and the like) are left out: a difference would mean nothing.
"""

from __future__ import annotations

import argparse
import re
import sys
from dataclasses import asdict, replace
from pathlib import Path

import yaml

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / ".collections")]

from ansible_collections.glm.fleet.plugins.module_utils.finding import Unmet
from ansible_collections.glm.fleet.plugins.plugin_utils.catalog import known
from ansible_collections.glm.fleet.plugins.plugin_utils.plan import lockfile

FILE = ROOT / "catalog" / "known.yml"
_NUMBERED = re.compile(r".*:v?\d+\.\d+.*")
_MOVING = re.compile(r".*(nightly|latest|main|dev)\b.*")


def merged(have: known.Known, lock: lockfile.LockData, source: str) -> known.Known:
    """``have`` with what ``lock`` has more. Raises Unmet where they contradict each other."""
    images = {image.name: image for image in have.images}
    for name, entry in lock["images"].items():
        tag = name.rpartition("/")[2]
        if _NUMBERED.fullmatch(tag) and not _MOVING.fullmatch(tag):
            known.require_image(name, entry["digest"], have)
            images.setdefault(name, known.KnownImage(name, entry["digest"], source))
    models = {(model.repository, model.commit): model for model in have.models}
    for key, locked in lock["models"].items():
        repository, commit, listed = key.partition("@")[0], locked["commit"], locked.get("manifest_sha256")
        if listed:
            known.require_model(repository, commit, listed, have)
            models.setdefault((repository, commit), known.KnownModel(repository, commit, listed, source))
    return replace(have, images=[images[key] for key in sorted(images)], models=[models[key] for key in sorted(models)])


def rendered(content: known.Known, head: str) -> str:
    """The file's text under its comments."""
    return head + yaml.safe_dump({"known": asdict(content)}, sort_keys=False, width=120)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--source", required=True, help="who saw it: the deploy, its place and date")
    parser.add_argument("lock_files", nargs="+", type=Path)
    given = parser.parse_args()
    text = FILE.read_text(encoding="utf-8")
    head = "".join(line for line in text.splitlines(keepends=True) if line.startswith(("---", "#")))
    content = known.load()
    try:
        for path in given.lock_files:
            content = merged(content, lockfile.read(path), given.source)
    except (Unmet, lockfile.LockFileError) as problem:
        sys.exit(str(problem))
    FILE.write_text(rendered(content, head), encoding="utf-8")
    print(f"{FILE.relative_to(ROOT)}: {len(content.images)} images, {len(content.models)} commits of models")
    return 0


if __name__ == "__main__":
    sys.exit(main())
