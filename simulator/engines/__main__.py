"""Build engine trees, sources and images ahead of a rehearsal: ``python -m simulator.engines [IMAGE:TAG ...]``."""

from __future__ import annotations

import argparse
import sys

from simulator.engines import images, trees
from simulator.settings import Settings
from simulator.support import RehearsalError

DEFAULTS = ("vllm/vllm-openai:v0.32.0", "lmsysorg/sglang:v0.5.10")


def main() -> int:
    """Print one line for each image: the layout's folder and the reference."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("references", nargs="*", default=list(DEFAULTS), help="images (default: %(default)s)")
    references = parser.parse_args().references
    cache = Settings.from_environment().cache_dir
    try:
        wanted = images.versions(references)
        for family in sorted({family for family, _ in wanted}):
            trees.build_tree(cache, family)
        trees.fetch_sources(cache, wanted)
        for layout, reference in images.build_images(cache, references):
            print(f"{layout} {reference}")
    except RehearsalError as error:
        print(f"simulator.engines: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
