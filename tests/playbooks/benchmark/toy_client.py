#!/usr/bin/env python3
"""Takes the arguments of ``vllm bench serve``, sends real requests, and writes the JSON that it writes.

Like the real one it says in the result what went wrong, and ends with status 0 whatever happened.
"""

from __future__ import annotations

import argparse
import http.client
import json
import os
import sys
import time
import urllib.error
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path


def parsed(argv: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    for name in ("backend", "base-url", "endpoint", "model", "served-model-name", "dataset-name", "request-rate",
                 "percentile-metrics", "metric-percentiles", "result-dir", "result-filename"):  # fmt: skip
        parser.add_argument(f"--{name}")
    for name in ("random-input-len", "random-output-len", "num-prompts", "max-concurrency", "seed"):
        parser.add_argument(f"--{name}", type=int)
    for name in ("ignore-eos", "save-result", "save-detailed"):
        parser.add_argument(f"--{name}", action="store_true")
    assert argv[:2] == ["bench", "serve"]
    return parser.parse_args(argv[2:])


def ask(options: argparse.Namespace) -> tuple[float, str]:
    """Seconds of one request, and the error as the real client words it."""
    body = {
        "model": options.served_model_name,
        "messages": [{"role": "user", "content": "x"}],
        "max_completion_tokens": options.random_output_len,
    }
    request = urllib.request.Request(
        options.base_url + options.endpoint,
        json.dumps(body).encode(),
        {"Content-Type": "application/json", "Authorization": f"Bearer {os.environ.get('OPENAI_API_KEY')}"},
    )
    begun = time.monotonic()
    try:
        with urllib.request.urlopen(request, timeout=900) as answer:
            answer.read()
    except urllib.error.HTTPError as error:
        return 0, error.reason
    except urllib.error.URLError as error:
        return 0, f"Traceback (most recent call last):\n  …\nClientConnectorError: Cannot connect to host ({error})\n"
    except (http.client.HTTPException, ConnectionError) as error:
        return 0, f"Traceback (most recent call last):\n  …\nServerDisconnectedError: Server disconnected ({error})\n"
    return time.monotonic() - begun, ""


def main() -> None:
    options = parsed(sys.argv[1:])
    if os.environ.get("TOY_CLIENT_CRASHES"):
        sys.exit("ImportError: no such thing")
    begun = time.monotonic()
    with ThreadPoolExecutor(options.max_concurrency or options.num_prompts) as pool:
        answers = []
        for number, answer in enumerate(pool.map(lambda _number: ask(options), range(options.num_prompts)), 1):
            answers.append(answer)
            share = f"{number}/{options.num_prompts} [00:00<00:00,  9.1it/s]"
            print(f"\r {number * 100 // options.num_prompts}%|##| {share}", end="", file=sys.stderr, flush=True)
    duration = time.monotonic() - begun
    times = sorted(seconds for seconds, error in answers if not error)
    tokens_in, tokens_out = (len(times) * size for size in (options.random_input_len, options.random_output_len))
    mean = 1000 * sum(times) / len(times) if times else 0.0
    last = 1000 * times[-1] if times else 0.0
    result = {
        "backend": options.backend,
        "num_prompts": options.num_prompts,
        "completed": len(times),
        "failed": options.num_prompts - len(times),
        "duration": duration,
        "total_input_tokens": tokens_in,
        "total_output_tokens": tokens_out,
        "output_throughput": tokens_out / duration,
        "total_token_throughput": (tokens_in + tokens_out) / duration,
        "errors": [error for _seconds, error in answers],
        "itls": [[0.1] * 100] * options.num_prompts,
        **{f"mean_{name}_ms": mean for name in ("ttft", "tpot", "itl")},
        **{f"p99_{name}_ms": last for name in ("ttft", "tpot", "itl")},
    }
    (Path(options.result_dir) / options.result_filename).write_text(json.dumps(result), encoding="utf-8")


if __name__ == "__main__":
    main()
