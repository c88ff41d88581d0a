"""
What leads to a prediction by another name: callback tokens, stream tokens, idempotency keys. Each is of the shard of
its own name, and so is written before what it leads to; whoever follows one asks at its end whether it is true.
"""

from __future__ import annotations

from typing import NamedTuple

from gateway.contract.prediction import Prediction
from gateway.store._change import IDEMPOTENCY_LIFETIME
from gateway.store._redis_key import Shard
from gateway.store._redis_seat import Seat
from gateway.store._redis_wire import Argument, Call, load

POINT = load("point")
CLAIM_KEY = load("claim_key")
FREE_KEY = load("free_key")
PUT_KEY = load("put_key")

KEY_MICROS = IDEMPOTENCY_LIFETIME // IDEMPOTENCY_LIFETIME.resolution


class Pointed(NamedTuple):
    """Keys and values of pointers that a change writes itself, because they lie in its shard."""

    keys: list[str]
    values: list[str]


class Pointers:
    def __init__(self, seat: Seat) -> None:
        self._seat = seat
        self._keys = seat.keys

    # -- tokens ------------------------------------------------------------------------------------------------

    async def write(self, shard: Shard, prediction: Prediction, *, known_attempts: int = -1) -> Pointed:
        """
        Those of attempts that are new; with none known, that of the stream too. Those of other shards are durable from
        here on. Raises ValueError if one of them is another prediction's.
        """
        id = prediction.id
        wanted = [("t", prediction.stream_token, id)] if known_attempts < 0 else []
        new = prediction.attempts[max(known_attempts, 0) :]
        wanted += [("a", attempt.token_hash, f"{id} {attempt.number}") for attempt in new]
        here = Pointed([], [])
        elsewhere: list[Call] = []
        for kind, token, value in wanted:
            home = self._keys.shard(token)
            key = home.pointer(kind, token)
            if home is shard:
                here.keys.append(key)
                here.values.append(value)
            else:
                elsewhere.append(self._seat.call(POINT, [key], [value]))
        if elsewhere and not all(await self._seat.run_all(elsewhere)):
            raise taken(prediction) if known_attempts < 0 else token_taken(prediction)
        return here

    async def find_attempt(self, token_hash: str) -> tuple[str, int] | None:
        found = await self._follow("a", token_hash)
        if found is None:
            return None
        id, _, number = found.partition(" ")
        [kept] = await self._seat.read(("HGET", self._keys.shard(id).prediction(id), f"token:{number}"))
        return (id, int(number)) if kept == token_hash.encode() else None

    async def find_stream(self, stream_token: str) -> str | None:
        id = await self._follow("t", stream_token)
        if id is None:
            return None
        [kept] = await self._seat.read(("HGET", self._keys.shard(id).prediction(id), "stream"))
        return id if kept == stream_token.encode() else None

    async def _follow(self, kind: str, token: str) -> str | None:
        [found] = await self._seat.read(("GET", self._keys.shard(token).pointer(kind, token)))
        return found.decode() if found is not None else None

    # -- idempotency keys --------------------------------------------------------------------------------------

    async def claim_key(self, owner: str, key: str, id: str, *, renews: bool = False) -> str:
        """Which prediction the key stands for: this one, unless another came first. `renews`: for a day from now."""
        args: list[Argument] = [id, KEY_MICROS, "1" if renews else ""]
        claimed: bytes = await self._seat.run(CLAIM_KEY, [self._name(owner, key)], args)
        return claimed.decode()

    async def free_key(self, owner: str, key: str, id: str) -> None:
        await self._seat.run(FREE_KEY, [self._name(owner, key)], [id])

    async def put_key(self, owner: str, key: str, id: str, lasts: int) -> None:
        await self._seat.run(PUT_KEY, [self._name(owner, key)], [id, lasts])

    def _name(self, owner: str, key: str) -> str:
        name = f"{len(owner)}:{owner}:{key}"
        return self._keys.shard(name).pointer("i", name)


def taken(prediction: Prediction) -> ValueError:
    return ValueError(f"the id or the stream token of prediction {prediction.id} is taken by another one")


def token_taken(prediction: Prediction) -> ValueError:
    return ValueError(f"the callback token of an attempt of prediction {prediction.id} is taken by another one")
