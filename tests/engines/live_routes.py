"""Print the routes of a real engine's app as JSON: ``python live_routes.py vllm|sglang``, with its tree on PYTHONPATH.

A program of its own, because it runs under the Python of the engine. What only some settings add is added, as far as
the app can be made without a model.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Iterator
from typing import Any


def vllm() -> Any:
    from vllm.entrypoints.launchers.app import build_app
    from vllm.entrypoints.launchers.cli_args import make_arg_parser
    from vllm.utils.argparse_utils import FlexibleArgumentParser

    everything = ["--enable-scale-out", "--enable-tokenizer-info-endpoint"] if "everything" in sys.argv else []
    arguments = make_arg_parser(FlexibleArgumentParser()).parse_args(["model", *everything])
    tasks = ("generate", "transcription", "realtime", "render") if everything else ("generate",)
    return build_app(arguments, tasks)


def sglang() -> Any:
    from sglang.srt.entrypoints.http_server import app
    from sglang.srt.utils import add_prometheus_middleware, set_prometheus_multiproc_dir

    set_prometheus_multiproc_dir()
    add_prometheus_middleware(app)
    return app


def walk(routes: Iterable[Any], prefix: str = "") -> Iterator[tuple[str, list[str]]]:
    for route in routes:
        included = getattr(route, "original_router", None)
        if included is not None:
            yield from walk(included.routes, prefix + (getattr(route.include_context, "prefix", "") or ""))
        elif type(route).__name__ == "Mount":
            yield prefix + route.path, ["ANY"]
        elif "WebSocket" in type(route).__name__:
            yield prefix + route.path, ["WEBSOCKET"]
        else:
            yield prefix + route.path, sorted(route.methods)


if __name__ == "__main__":
    made = {"vllm": vllm, "sglang": sglang}[sys.argv[1]]()
    print("routes:" + json.dumps(list(walk(made.routes))))
