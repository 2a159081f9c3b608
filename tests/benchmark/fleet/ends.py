"""Scenarios of ends: a host without power, and a gateway that is killed."""

from __future__ import annotations

import http.client
import ssl
import time

from tests.benchmark.fleet import counting, measured
from tests.benchmark.fleet.counting import ANSWERED, Asked
from tests.benchmark.fleet.load import GATEWAY_PORT, Asking
from tests.benchmark.fleet.measured import Check, Proof, at_most, equal
from tests.integration.rehearsal import STATE

NOTICED_SECONDS = 2.0
AGAIN_SECONDS = 1.0
# Until what ran on a host that is gone has ended: by then its clients have heard of it.
ENDED_SECONDS = 45.0
HEARD_SECONDS = 30.0
BOOT_SECONDS = 400.0


def _split(asked: list[Asked], first: float, last: float) -> tuple[list[Asked], list[Asked]]:
    """Requests that were under way between two moments, and those that began after both."""
    return [one for one in asked if one.begun <= last and one.ended > first], [one for one in asked if one.begun > last]


def _shown(lost: dict[str, int], all_: list[Asked]) -> str:
    return f"{', '.join(f'{count} {how}' for how, count in lost.items()) or '0'} of {len(all_)}"


def kill_host(proof: Proof) -> list[Check]:
    """All that runs on a host without a gateway is killed under load, and comes back with its boot."""
    return _host_ends(proof, silent=False)


def cut_host(proof: Proof) -> list[Check]:
    """The same without power: no connection is closed."""
    return _host_ends(proof, silent=True)


def _host_ends(proof: Proof, silent: bool) -> list[Check]:
    host = next(name for name in proof.fleet.names if name not in proof.gateways)
    client = proof.client(timeout=ENDED_SECONDS)
    moments: list[float] = []

    def killed() -> None:
        moments.extend((proof.fleet.kill(host, silent), time.time()))
        time.sleep(ENDED_SECONDS)

    seen = measured.under_load(proof, killed, client)
    before, dead = moments
    # Killing takes a part of a second: who begins meanwhile may still meet the host.
    noticed = counting.first_without(seen.looks, proof.fleet.replica(host), before)
    under_way, new = _split(seen.asked, before, dead)
    broken = [one for one in under_way if one.outcome != ANSWERED]
    again = _boot(proof, host)
    return [
        equal("gateways that noticed", len(proof.gateways), len(noticed)),
        at_most("until no gateway sent requests there", NOTICED_SECONDS, max(noticed.values(), default=1e9), " s"),
        Check("new requests lost", "0", _shown(counting.lost(new), new), bool(new) and not counting.lost(new)),
        at_most("slowest new request", HEARD_SECONDS, max((one.ended - one.begun for one in new), default=0), " s"),
        Check("requests under way lost", "-", _shown(counting.lost(under_way), under_way), True),
        Check(
            "hosts that were out", host, f"{measured.out_of(proof, seen)}", [*measured.out_of(proof, seen)] == [host]
        ),
        at_most(
            "until clients knew of what was lost",
            HEARD_SECONDS,
            max((one.ended - before for one in broken), default=0.0),
            " s",
        ),
        at_most("until it served again after its boot", BOOT_SECONDS, again, " s"),
        *measured.ends_well(proof, proof.fleet.states().values()),
    ]


def _boot(proof: Proof, host: str) -> float:
    """Seconds from the boot of a host until every gateway sends requests there."""
    begun = time.monotonic()
    proof.fleet.boot(host)
    while measured.admitting_all(proof) != len(proof.gateways):
        if time.monotonic() - begun > BOOT_SECONDS:
            break
    return time.monotonic() - begun


class Probe(Asking):
    """Asks gateways for /ready, twenty times a second each, and notes when each answered."""

    def __init__(self, addresses: list[str]) -> None:
        super().__init__(addresses)
        self._trust = ssl.create_default_context(cafile=str(STATE / "state" / "tls" / "ca.pem"))
        self.answers: dict[str, list[tuple[float, bool]]] = {address: [] for address in addresses}

    def _ask_on(self, address: str) -> None:
        while not self._stop.wait(0.05):
            self.answers[address].append((time.time(), self._ready(address)))

    def _ready(self, address: str) -> bool:
        connection = http.client.HTTPSConnection(address, GATEWAY_PORT, context=self._trust, timeout=2)
        try:
            connection.request("GET", "/ready")
            return connection.getresponse().status == 200
        except (OSError, http.client.HTTPException):
            return False
        finally:
            connection.close()


def kill_gateway(proof: Proof) -> list[Check]:
    """A gateway's processes are killed under load; its unit starts it again."""
    gateway = proof.gateways[0]
    moments: list[float] = []

    def killed() -> None:
        moments.append(time.time())
        proof.fleet.on(gateway, "systemctl", "kill", "--signal=SIGKILL", "glm-gateway.service")
        moments.append(time.time())
        time.sleep(10)

    with Probe(proof.addresses) as probe:
        seen = measured.under_load(proof, killed)
    both = sorted(one for answers in probe.answers.values() for one in answers)
    under_way, new = _split(seen.asked, *moments)
    own = counting.longest_gap(probe.answers[proof.fleet.address(gateway)])
    return [
        Check("until it answered again", "-", f"{own:.2f} s", True),
        at_most("until it or the other answered", AGAIN_SECONDS, counting.longest_gap(both), " s"),
        Check("new requests lost", "0", _shown(counting.lost(new), new), bool(new) and not counting.lost(new)),
        Check("new requests that asked the other", "-", str(sum(one.tries > 1 for one in new)), True),
        Check("requests under way lost", "-", _shown(counting.lost(under_way), under_way), True),
        *measured.ends_well(proof, proof.fleet.states().values()),
    ]
