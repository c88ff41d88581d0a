"""
Redis on a disk that loses its power, from the system calls of the real server: what it had written to its append-only
file, what of that it had synced, and whom it had answered, at every moment of a life.
"""

from __future__ import annotations

import random
import re
import time
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple
from unittest import mock

from tests.chaos.power import calls
from tests.chaos.power.calls import Call
from tests.redis import server
from tests.redis.server import RedisServer

COUNTER = b"counter"
LOG = "incr.aof"
_REPLY = re.compile(r'\d+<(?:socket|TCP)[^>]*>, ":(\d+)\\r\\n"')
_INCR = b"*2\r\n$4\r\nINCR\r\n$7\r\ncounter\r\n"


class Life(NamedTuple):
    """All that a server did, and the file that it left."""

    calls: list[Call]
    log: bytes
    folder: Path


class Window(NamedTuple):
    cuts: int
    told: int  # answers at all
    losing_cuts: int
    lost_most: int  # answers, at one cut
    seconds_longest: float  # between a cut and the oldest answer that it took back
    syncs: int


def live(folder: Path, appendfsync: str, *, answers: int, pause_seconds: float) -> Life:
    """One client that counts up, one by one: the answer says which it is."""
    folder.mkdir(parents=True)
    script, out = folder / "redis", folder / "calls"
    script.write_text(
        "#!/bin/sh\nexec " + " ".join(f"'{word}'" for word in calls.prefix(out)) + f' {server.program()} "$@"\n'
    )
    script.chmod(0o700)
    place = folder / "data"
    with (
        mock.patch.object(server, "program", return_value=str(script)),
        RedisServer(place, "--appendfsync", appendfsync) as running,
        running.client() as client,
    ):
        for _ in range(answers):
            client.execute_command("INCR", COUNTER)
            time.sleep(pause_seconds)  # the pace of the life, not a wait for anything
        client.config_set("appendfsync", "always")
        client.set("end", "x")
    [log] = place.glob(f"appendonlydir/*.{LOG}")
    return Life(calls.read(out), log.read_bytes(), place)


def window(life: Life) -> Window:
    """At every moment: which answers stand on what was not synced."""
    ends = [found.end() for found in re.finditer(re.escape(_INCR), life.log)]
    told: list[tuple[float, int]] = []  # when, and how much of the file must be there
    events = sorted(
        [(call.begun, False, call) for call in life.calls] + [(call.ended, True, call) for call in life.calls]
    )
    written = synced = syncs = cuts = losing = most = 0
    longest = 0.0
    begun_with: dict[int, int] = {}
    first_lost = 0
    for _, has_ended, call in events:
        if call.is_on(LOG) and call.name == "write" and has_ended:
            written += call.result
        elif call.is_on(LOG) and call.is_sync:
            if has_ended:
                synced, syncs = max(synced, begun_with.pop(call.begun)), syncs + 1
            else:
                begun_with[call.begun] = written
        elif not has_ended and (reply := _REPLY.match(call.arguments)) is not None:
            told.append((call.at, ends[int(reply[1]) - 1]))
        # The power goes now.
        cuts += 1
        while first_lost < len(told) and told[first_lost][1] <= synced:
            first_lost += 1
        lost = len(told) - first_lost
        if lost:
            losing, most = losing + 1, max(most, lost)
            longest = max(longest, call.at - told[first_lost][0])
    return Window(cuts, len(told), losing, most, longest, syncs)


def ruins(life: Life, folder: Path, *, cuts: int, seed: int) -> list[tuple[int, int]]:
    """(answered before the cut, counted by a server that starts on what is left) at seeded moments."""
    chance = random.Random(seed)
    found: list[tuple[int, int]] = []
    for number in range(cuts):
        moment = chance.choice([call.ended for call in life.calls])
        told, synced, written = _standing(life.calls, moment)
        place = folder / str(number)
        kept = chance.choice((synced, chance.randint(synced, written)))
        _lay_out(life, place, kept)
        with RedisServer(place, "--appendfsync", "always") as again, again.client() as client:
            found.append((told, int(client.get(COUNTER) or 0)))
    return found


def _standing(seen: Sequence[Call], moment: int) -> tuple[int, int, int]:
    """(the last answer begun, bytes synced, bytes written), with everything that had ended by then."""
    told = synced = 0
    for call in seen:
        if (reply := _REPLY.match(call.arguments)) is not None and call.begun <= moment:
            told = max(told, int(reply[1]))
        if call.is_on(LOG) and call.is_sync and call.ended <= moment:
            synced = max(synced, _written(seen, call.begun))
    return told, synced, _written(seen, moment)


def _written(seen: Sequence[Call], moment: int) -> int:
    return sum(call.result for call in seen if call.is_on(LOG) and call.name == "write" and call.ended <= moment)


def _lay_out(life: Life, place: Path, kept: int) -> None:
    source, target = life.folder / "appendonlydir", place / "appendonlydir"
    target.mkdir(parents=True)
    for file in source.iterdir():
        content = file.read_bytes()
        (target / file.name).write_bytes(content[:kept] if file.name.endswith(LOG) else content)
