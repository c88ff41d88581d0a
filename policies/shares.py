"""Orders offers by shares of the traffic, for canaries and A/B tests. Knows no cost, latency or health."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

from gateway.contract.reason import Reason
from gateway.contract.route import Candidate, Choice, Offer
from policies.document import Policy, Rank
from policies.keep import Code, Demand
from policies.rank import Draw, choice_of

# From (0, 1], by what is asked for. Drawn anew each time, or always the same for one key or label.
Number = Callable[[str], float]


class Place(NamedTuple):
    """Where a candidate stands: those with a share first, then by their name's ticket, then by their own."""

    is_without: bool
    ticket: float
    own: float
    candidate: Candidate
    name: str | None

    def order(self) -> tuple[bool, float, float]:
        return self[:3]


def by_shares(policy: Policy, candidates: Sequence[Candidate], demand: Demand, *, draw: Draw) -> list[Choice]:
    """
    `candidates` in the order of a lottery in which each name of `shares` has its weight: whoever leaves hands on what
    he had in proportion. Offers under one name share it evenly, those without a share come last.

    Sticky numbers come of a hash for each name and each offer (rendezvous hashing): another weight moves only those who
    go to or leave the one whose weight it is, and an offer that is away moves only its own.
    """
    shares = policy.rank.shares
    about, number = _numbers(policy, demand, draw)
    named = [(candidate, share_of(policy.rank, candidate.offer)) for candidate in candidates]
    # Sorted: whatever the list's order is, the same draws make the same plan.
    tickets = {name: -math.log(number(name)) / shares[name] for name in sorted({name for _, name in named if name})}
    several = len(named) > len(tickets)
    places = []
    for candidate, name in sorted(named, key=lambda pair: pair[0].offer.id):
        own = -math.log(number(f"offer {candidate.offer.id}")) if several else 0.0
        places.append(Place(name is None, tickets[name] if name else 0.0, own, candidate, name))
    places.sort(key=Place.order)
    total = sum(shares[name] for name in tickets)
    ranked: list[Choice] = []
    for place in places:
        said = f"{shares[place.name]:g} of {total:g} shares" if place.name else "no share"
        if not ranked:
            reason = Reason(code=Code.SHARE, written=f"{said}, {about if place.name else 'and no other has one'}")
        else:
            reason = Reason(code=Code.NEXT, written=f"{said}, behind {ranked[-1].provider}")
        ranked.append(choice_of(place.candidate, (reason,), score=place.ticket if place.name else None))
    return ranked


def share_of(rank: Rank, offer: Offer) -> str | None:
    """The name in `shares` under which an offer gets traffic; its own goes before its provider's. None: no share."""
    name = offer.own_name if offer.own_name in rank.shares else offer.provider
    return name if rank.shares.get(name, 0.0) > 0 else None


def _numbers(policy: Policy, demand: Demand, draw: Draw) -> tuple[str, Number]:
    """How the lottery is drawn, in words and as numbers."""
    sticky = policy.rank.sticky
    if sticky == "key":
        return "sticky by key", _hashed(f"{policy.name}\x00key\x00{demand.key}")
    if sticky:
        label = sticky.removeprefix("label:")
        value = demand.labels.get(label)
        if value is None:
            return f"drawn, for want of a label {label}", lambda name: 1.0 - draw()
        return f"sticky by label {label}", _hashed(f"{policy.name}\x00label\x00{label}\x00{value}")
    return "drawn", lambda name: 1.0 - draw()


def _hashed(who: str) -> Number:
    """The same for ever, in every process. The policy's name is in it: not the same callers try everything first."""
    seed = hashlib.blake2b(who.encode("utf-8", "surrogatepass"), digest_size=16).digest()

    def number(name: str) -> float:
        digest = hashlib.blake2b(name.encode("utf-8", "surrogatepass"), key=seed, digest_size=8).digest()
        return (int.from_bytes(digest) + 1) / 2**64

    return number
