"""Does what an engine does, in a container or on the host: says its phases, has its key from the environment, serves.

``TOY_MODE`` makes it misbehave: ``exit`` (ends while loading), ``no-chat`` (answers all but chats), ``killed`` (kills
itself when stopped, as SGLang 0.5.10 does), ``worker`` (has no endpoint: a further rank). It loads weights for as long
as a file ``toy-hold`` is beside them.
"""

from __future__ import annotations

import json
import os
import re
import signal
import sys
import time
from pathlib import Path

from fake import server

HOLDS = [f"{folder}/toy-hold" for folder in ("/root/.cache/huggingface", "/var/lib/glm/huggingface")]


def main() -> None:
    mode = os.environ.get("TOY_MODE", "")
    killed = mode == "killed"
    signal.signal(signal.SIGTERM, lambda *_: os.kill(os.getpid(), signal.SIGKILL) if killed else os._exit(0))
    print("argv " + json.dumps(sys.argv[1:]), flush=True)
    shown = re.compile(r"TOY_|.*_SOCKET_IFNAME")
    environment = {name: value for name, value in os.environ.items() if shown.match(name)}
    print("environ " + json.dumps(environment), flush=True)
    print("devices " + json.dumps([str(path) for path in Path("/dev").glob("nvidia[0-9]*")]), flush=True)
    key = os.environ["VLLM_API_KEY"]
    print(f"non-default args: api_key={key}", flush=True)
    for shard in range(1, 4):
        print(f"Loading safetensors checkpoint shards:  33% Completed | {shard}/3 [00:01<00:01]", flush=True)
        time.sleep(1)
    while any(map(os.path.exists, HOLDS)):
        time.sleep(0.2)
    if mode == "exit":
        print(f"ValueError: cannot serve with {key}", flush=True)
        sys.exit(1)
    if mode == "worker":
        signal.pause()
    behaviour = server.Behaviour(key=key, chat_status=500 if mode == "no-chat" else 200)
    where = os.environ.get("TOY_ADDRESS", "0.0.0.0"), int(os.environ.get("TOY_PORT", "8000"))
    with server.engine(behaviour, where):
        print(f"Starting vLLM server on http://{where[0]}:{where[1]}", flush=True)
        signal.pause()


if __name__ == "__main__":
    main()
