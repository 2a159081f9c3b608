"""Runs in a container as an engine does: says its phases, reads its key from the environment, ends on SIGTERM.

``TOY_MODE`` makes it misbehave: ``exit`` (ends while loading), ``no-chat`` (answers all but chats), ``killed`` (ends
with 137 when stopped, as SGLang 0.5.10 does).
"""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from pathlib import Path

import fake_engine


def main() -> None:
    mode = os.environ.get("TOY_MODE", "")
    signal.signal(signal.SIGTERM, lambda *_args: os._exit(137 if mode == "killed" else 0))
    print("argv " + json.dumps(sys.argv[1:]), flush=True)
    print("devices " + json.dumps([str(path) for path in Path("/dev").glob("nvidia[0-9]*")]), flush=True)
    key = os.environ["VLLM_API_KEY"]
    print(f"non-default args: api_key={key}", flush=True)
    for shard in range(1, 4):
        print(f"Loading safetensors checkpoint shards:  33% Completed | {shard}/3 [00:01<00:01]", flush=True)
        time.sleep(1)
    if mode == "exit":
        print(f"ValueError: cannot serve with {key}", flush=True)
        sys.exit(1)
    behaviour = fake_engine.Behaviour(key=key, chat_status=500 if mode == "no-chat" else 200)
    with fake_engine.engine(behaviour, ("0.0.0.0", 8000)):
        print("Starting vLLM server on http://0.0.0.0:8000", flush=True)
        signal.pause()


if __name__ == "__main__":
    main()
