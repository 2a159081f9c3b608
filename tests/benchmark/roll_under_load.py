"""Count what clients of the gateways lose while every host of a fleet is restarted with another flag.

Run from the root of a checkout: ``.venv/bin/python tests/benchmark/roll_under_load.py [--engine sglang]
[--streams 8] [--keep]``. It brings up a rehearsal with two hosts and two gateways, sends streams through both gateways
from before the deploy until after it, and ends the rehearsal without --keep. An answer counts only when its
stream ends with stop, length or tool_calls: an aborted one has a `[DONE]`, too. It fails when the deploy does, and when
nothing was answered.
"""

from __future__ import annotations

import argparse
import collections
import http.client
import json
import ssl
import sys
import threading
import time
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
sys.path[:0] = [str(ROOT), str(ROOT / ".collections")]

from tests.integration.rehearsal import STATE, command, inventory, playbook

GATEWAY_PORT = 8443
ENDED = ("stop", "length", "tool_calls")
# A flag that restarts the engine and changes nothing of its answers, with its name in each engine.
FLAGS = {"vllm": "max-num-seqs", "sglang": "max-running-requests"}


class Load:
    """Clients that each ask one turn after another, in conversations of five turns."""

    def __init__(self, gateways: list[str], clients: int) -> None:
        self._gateways = gateways
        self._key = (STATE / "state" / "api_key").read_text("utf-8").strip()
        self._trust = ssl.create_default_context(cafile=str(STATE / "state" / "tls" / "ca.pem"))
        self._stop = threading.Event()
        self._lock = threading.Lock()
        self.outcomes: collections.Counter[str] = collections.Counter()
        self.slowest = 0.0
        self._threads = [threading.Thread(target=self._ask_on, args=(number,)) for number in range(clients)]

    def __enter__(self) -> Load:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_error: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join()

    def _ask_on(self, number: int) -> None:
        turn = 0
        while not self._stop.is_set():
            begun = time.monotonic()
            outcome = self._outcome(self._gateways[number % len(self._gateways)], f"conversation {number}-{turn // 5}")
            with self._lock:
                self.outcomes[outcome] += 1
                self.slowest = max(self.slowest, time.monotonic() - begun)
            turn += 1
            time.sleep(0.1)

    def _outcome(self, gateway: str, words: str) -> str:
        """``answered``, or what was lost."""
        body: dict[str, Any] = {
            "model": "glm-5.1-fp8",
            "stream": True,
            "max_tokens": 150,
            "messages": [{"role": "user", "content": words}],
        }
        headers = {"Authorization": f"Bearer {self._key}", "Content-Type": "application/json"}
        connection = http.client.HTTPSConnection(gateway, GATEWAY_PORT, context=self._trust, timeout=600)
        try:
            connection.request("POST", "/v1/chat/completions", json.dumps(body), headers)
            answer = connection.getresponse()
            text = answer.read().decode("utf-8", "replace")
        except (OSError, http.client.HTTPException) as error:
            return f"lost: {type(error).__name__}"
        finally:
            connection.close()
        return f"lost: HTTP {answer.status}" if answer.status != 200 else ended(text)


def ended(stream: str) -> str:
    """``answered``, or how the stream ended."""
    reason = None
    for line in stream.splitlines():
        if line.startswith("data: {"):
            event = json.loads(line.removeprefix("data: "))
            if "error" in event:
                return "lost: an error in the stream"
            for choice in event.get("choices", []):
                reason = choice.get("finish_reason") or reason
    return "answered" if reason in ENDED else f"lost: ended with {reason}"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--engine", choices=sorted(FLAGS), default="vllm")
    parser.add_argument("--streams", type=int, default=8)
    parser.add_argument("--keep", action="store_true", help="leave the rehearsal running")
    given = parser.parse_args()
    intent: dict[str, Any] = {"glm_engine": given.engine, "glm_launch_count": 2, "glm_gateways": 2}
    try:
        begun = command("make", "rehearse", f"ENGINE={given.engine}", "ARGS=-e glm_gateways=2")
        if begun.code:
            return begun.code
        # Gateways do not listen at the public addresses.
        gateways = [str(host["glm_host_private_address"]) for host in inventory().values()]
        with Load(gateways, given.streams) as load:
            time.sleep(10)
            rolled = playbook("deploy_glm51.yml", **intent, glm_engine_args={FLAGS[given.engine]: 32})
            time.sleep(10)
    finally:
        if not given.keep:
            command("make", "rehearse-down")
    answered = load.outcomes.pop("answered", 0)
    lost = ", ".join(f"{count} {outcome}" for outcome, count in sorted(load.outcomes.items())) or "0 lost"
    print(f"{given.engine}, {given.streams} clients, 2 hosts restarted one after the other in {rolled.seconds:.0f} s:")
    print(f"    {answered:,} answered, {lost}; the slowest took {load.slowest:.1f} s")
    if not answered:
        expected = f"expected answers from {', '.join(gateways)}, found none"
        print(f"{expected}. Next: run it with --keep, and look at glm-gateway.service of the hosts.", file=sys.stderr)
        return rolled.code or 1
    return rolled.code


if __name__ == "__main__":
    sys.exit(main())
