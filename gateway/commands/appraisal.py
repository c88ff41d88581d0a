"""Judges prices: orders of magnitude off their siblings, stale, unknown. Reads no file and prints nothing."""

from __future__ import annotations

import enum
import itertools
import math
import statistics
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import date
from typing import Any

import msgspec
from msgspec.structs import replace

from gateway.contract.money import Price, Units, format_dollars
from gateway.contract.wording import read_date
from gateway.routing.unit import keys_of, price_for

# How far off an offer's siblings is worth a look, and how far is no price but another unit. Real prices of one model
# differ up to some sixty times.
_ODD, _WRONG = 10.0, 100.0
_WRONG_PER_SECOND = 40.0  # minutes are mistaken for seconds, and times differ little
# How far beyond what any other model of its kind costs, of at least so many models.
_BEYOND, _FEW = 30.0, 3
# In another unit than its siblings: for a prediction as they are made every day.
_TYPICAL = Units(
    seconds=10,
    images=1,
    megapixels=1,
    video_seconds=5,
    audio_seconds=60,
    characters=1000,
    input_tokens=1000,
    output_tokens=500,
    steps=30,
)
_WRONG_TYPICAL = 300.0
_MOST_INPUTS = 1000

_ONE = {
    "predictions": "prediction",
    "seconds": "second",
    "images": "image",
    "megapixels": "megapixel",
    "video_seconds": "second of video",
    "audio_seconds": "second of audio",
    "characters": "character",
    "input_tokens": "input token",
    "output_tokens": "output token",
    "steps": "step",
    "units": "unit",
}
_TIMES = frozenset({"seconds", "video_seconds", "audio_seconds"})
_SMALL = frozenset({"characters", "input_tokens", "output_tokens"})


class Level(enum.StrEnum):
    ERROR = "error"
    WARNING = "warning"


class Finding(msgspec.Struct, kw_only=True, frozen=True):
    """`code`: unit, free, stale, undated, unknown or tier."""

    level: Level
    code: str
    text: str


class Priced(msgspec.Struct, kw_only=True, frozen=True):
    """An offer as far as its price goes."""

    model: str
    task: str  # empty: not known
    offer: str  # in words
    price: Price
    source: str = ""
    date: str = ""
    is_ours: bool = False  # our own backend: what it costs is ours to say
    properties: Mapping[str, Any] | None = None  # of the model's input, as its JSON Schema has them; None: any


def appraise(offers: Sequence[Priced], *, today: date, max_age_days: int) -> list[tuple[Finding, ...]]:
    """What is to be said of each of `offers`; all of them are one another's measure."""
    rates = [_rates(offer.price) for offer in offers]
    return [
        tuple(_findings(index, offers, rates, today=today, max_age_days=max_age_days)) if not offer.is_ours else ()
        for index, offer in enumerate(offers)
    ]


def _findings(
    index: int, offers: Sequence[Priced], rates: Sequence[_Rates], *, today: date, max_age_days: int
) -> Iterator[Finding]:
    offer = offers[index]
    if not offer.price.is_known:
        yield _warn("unknown", "it has no price: counted as unknown, ranked behind every known one")
        return
    yield from _tier_findings(offer)
    yield from _unit_findings(index, offers, rates)
    yield from _date_findings(offer, today=today, max_age_days=max_age_days)


_Rates = tuple[tuple[str, int], ...]


def _tier_findings(offer: Priced) -> Iterator[Finding]:
    facts = sorted({name for tier in offer.price.tiers for name, _ in tier.when})
    strange = [
        name
        for name in facts
        if offer.properties is not None and keys_of(name) and not keys_of(name) & offer.properties.keys()
    ]
    for name in strange:
        yield _warn("tier", f'a tier asks for "{name}", of which the model\'s input says nothing: it is never known')
    if facts and not strange and not offer.price.parts:
        gap = _gap(offer.price, facts, offer.properties or {})
        if gap is None:
            yield _warn("unknown", "it has no price where none of its tiers holds")
        elif gap:
            where = ", ".join(f"{name} {str(value).lower()}" for name, value in gap.items())
            yield _warn("unknown", f"it has no price where {where}")


def _gap(price: Price, facts: Sequence[str], properties: Mapping[str, Any]) -> dict[str, Any] | None:
    """The first input without a price, {} if every one has; None if there are too many to look at."""
    keys = [key for key in properties if any(key in keys_of(fact) for fact in facts)]
    words = [_words(properties[key]) for key in keys]
    if not all(words) or math.prod(map(len, words)) > _MOST_INPUTS or not keys:
        return None
    inputs = (dict(zip(keys, values, strict=True)) for values in itertools.product(*words))
    return next((input for input in inputs if not price_for(price, input).is_known), {})


def _words(said: Any) -> Sequence[Any]:
    """All that a property may be, if they are counted."""
    if not isinstance(said, Mapping):
        return ()
    return (True, False) if said.get("type") == "boolean" else said.get("enum", ())


def _rates(price: Price) -> _Rates:
    """(unit, nano-dollars) of the price and of all its tiers."""
    return tuple(part for one in (price, *(tier.price for tier in price.tiers)) for part in one.parts)


# -- units ------------------------------------------------------------------------------------------------------------


def _unit_findings(index: int, offers: Sequence[Priced], rates: Sequence[_Rates]) -> Iterator[Finding]:
    offer = offers[index]
    siblings = [
        number
        for number, other in enumerate(offers)
        if number != index and not other.is_ours and other.model.lower() == offer.model.lower()
    ]
    if any(not rate for _, rate in rates[index]):
        dearer = sum(any(rate for _, rate in rates[number]) for number in siblings)
        if dearer:
            yield _warn("free", f"it is for nothing, where {_many(dearer, 'sibling')} cost something: unknown is not 0")
    for unit in dict.fromkeys(unit for unit, rate in rates[index] if rate):
        for rate in sorted({rate for one, rate in rates[index] if one == unit and rate}):
            near = _of(unit, rates, siblings)
            finding = _beside_siblings(unit, rate, near, others := _kin(unit, index, offers, rates))
            finding = finding or _beside_kin(unit, rate, others)
            if finding is not None:
                yield finding
    yield from _in_another_unit(offer, [offers[number] for number in siblings])


def _beside_siblings(unit: str, rate: int, near: Sequence[int], kin: Sequence[int]) -> Finding | None:
    factor = _off(rate, near)
    wrong = _WRONG_PER_SECOND if unit in _TIMES else _WRONG
    size = _size(factor)
    if size < _ODD:
        return None
    if len(set(near)) == 1 and len(kin) >= _FEW and _off(rate, kin) == 1.0 and _off(near[0], kin) != 1.0:
        return None  # of two that contradict each other it is the one like everybody else's
    nearest = max(near) if factor > 1 else min(near)
    said = f"{_dollars(rate, unit)} is {_times(factor)} what its nearest sibling costs ({_dollars(nearest, unit)})"
    if size < wrong:
        return _warn("unit", said)
    return Finding(level=Level.ERROR, code="unit", text=said + _cause(unit, factor))


def _beside_kin(unit: str, rate: int, kin: Sequence[int]) -> Finding | None:
    if len(kin) < _FEW or _size(_off(rate, kin)) < _BEYOND:
        return None
    factor = rate / _middle(kin)
    said = f"{_dollars(rate, unit)} is {_times(factor)} what other models of its kind cost"
    return Finding(
        level=Level.ERROR, code="unit", text=f"{said} ({_dollars(_middle(kin), unit)})" + _cause(unit, factor)
    )


def _in_another_unit(offer: Priced, siblings: Sequence[Priced]) -> Iterator[Finding]:
    known = [other for other in siblings if other.price.is_known]
    if not known or any(offer.price.units & other.price.units for other in known):
        return
    costs = [cost for other in known for cost in _typical(other.price)]
    for cost in _typical(offer.price):
        factor = _off(cost, costs)
        if _size(factor) >= _WRONG_TYPICAL:
            units = " and ".join(_ONE[unit] for unit in sorted(offer.price.units))
            said = f"priced per {units}, a usual prediction costs {_times(factor)} what it does at its siblings"
            yield Finding(level=Level.ERROR, code="unit", text=f"{said}: is it sold so?")


def _typical(price: Price) -> list[int]:
    costs = [one.of(_TYPICAL) for one in (*(tier.price for tier in price.tiers), replace(price, tiers=()))]
    return [cost for cost in costs if cost]


def _of(unit: str, rates: Sequence[_Rates], numbers: Iterable[int]) -> list[int]:
    return [rate for number in numbers for one, rate in rates[number] if one == unit and rate]


def _kin(unit: str, index: int, offers: Sequence[Priced], rates: Sequence[_Rates]) -> list[int]:
    """The middle rate of every other model of the same kind, or of any kind where this is not known."""
    mine = offers[index]
    by_model: dict[str, list[int]] = {}
    for number, other in enumerate(offers):
        is_kin = not mine.task or other.task == mine.task
        if is_kin and not other.is_ours and other.model.lower() != mine.model.lower():
            by_model.setdefault(other.model.lower(), []).extend(_of(unit, rates, (number,)))
    return [_middle(found) for found in by_model.values() if found]


def _off(rate: float, others: Sequence[int]) -> float:
    """By what factor it is above the dearest or below the cheapest of them; 1 if it is among them."""
    if not others:
        return 1.0
    if rate > max(others):
        return rate / max(others)
    return rate / min(others) if rate < min(others) else 1.0


def _size(factor: float) -> float:
    return max(factor, 1 / factor)


def _middle(found: Sequence[int]) -> int:
    return statistics.median_high(found)


def _cause(unit: str, factor: float) -> str:
    """What is most often mistaken for what, if the factor is about that."""
    one, many = _ONE[unit], _ONE[unit].replace(" of", "s of", 1) if " of" in _ONE[unit] else f"{_ONE[unit]}s"
    over = {
        100.0: ("cents written as dollars", "dollars taken for cents"),
        1e3: (f"dollars per 1,000 {many} written per {one}", f"dollars per {one} taken for dollars per 1,000"),
        1e6: (f"dollars per 1M {many} written per {one}", f"dollars per {one} taken for dollars per 1M"),
    }
    if unit in _TIMES:
        over[60.0] = ("dollars per minute written per second", "dollars per second taken for dollars per minute")
        over[3600.0] = ("dollars per hour written per second", "dollars per second taken for dollars per hour")
    if unit in _SMALL:
        over[1e5] = (f"cents per 1,000 {many} written as dollars per {one}", "")
        over[1e8] = (f"cents per 1M {many} written as dollars per {one}", "")
    if unit == "megapixels":
        over[1e6] = ("dollars per 1M images written per megapixel", "dollars per pixel written per megapixel")
    size = _size(factor)
    known = min(over, key=lambda one: abs(math.log10(size / one)))
    said = over[known][0 if factor > 1 else 1]
    return f"; looks like {said}" if said and abs(math.log10(size / known)) <= 0.5 else ""


def _dollars(rate: int, unit: str) -> str:
    return f"{format_dollars(rate)} per {_ONE[unit]}"


def _times(factor: float) -> str:
    if factor >= 1:
        return f"{factor:,.0f} times" if factor >= 10 else f"{factor:.1f} times"
    return f"1/{1 / factor:,.0f} of"


def _many(count: int, noun: str) -> str:
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"


def _warn(code: str, text: str) -> Finding:
    return Finding(level=Level.WARNING, code=code, text=text)


# -- dates ------------------------------------------------------------------------------------------------------------


def _date_findings(offer: Priced, *, today: date, max_age_days: int) -> Iterator[Finding]:
    if not offer.date:
        yield _warn("undated", "nobody knows of when its price is: write `source` and `date` beside it")
        return
    since = read_date(offer.date)  # of a year alone its first day: it is not known to be later
    age = (today - since).days
    if age < 0:
        yield _warn("stale", f"its price is of {offer.date}, which is still to come")
    elif age > max_age_days:
        yield _warn("stale", f"its price is of {offer.date}: {age} days old, more than {max_age_days}")
