"""Money as integers of nano-dollars, and prices by unit. Unknown is None, never 0."""

from __future__ import annotations

import enum
import functools
from collections.abc import Callable, Iterable, Mapping
from decimal import Decimal, InvalidOperation
from typing import Any

import msgspec
from msgspec.structs import replace

from gateway.contract.condition import Condition, read_condition

NANOS = 1_000_000_000
MAX_NANOS = 2**63 - 1025  # the most a store's integer and a float both hold: nine billion dollars


class CostBasis(enum.StrEnum):
    """Where a cost comes from."""

    REPORTED = "reported"  # the provider said it
    COMPUTED = "computed"  # price x units it reported or we measured
    UNKNOWN = "unknown"


class Cost(msgspec.Struct, kw_only=True, frozen=True):
    """What an attempt cost. `nanos` is None exactly when the basis is unknown."""

    nanos: int | None
    basis: CostBasis


NOTHING_SPENT = Cost(nanos=0, basis=CostBasis.COMPUTED)
UNKNOWN_COST = Cost(nanos=None, basis=CostBasis.UNKNOWN)


def basis_of(costs: Iterable[Cost]) -> CostBasis:
    """Of a sum: unknown if a part is, reported if all parts are."""
    bases = {cost.basis for cost in costs}
    if CostBasis.UNKNOWN in bases:
        return CostBasis.UNKNOWN
    return CostBasis.REPORTED if bases == {CostBasis.REPORTED} else CostBasis.COMPUTED


class Units(msgspec.Struct, kw_only=True, frozen=True, omit_defaults=True):
    """How much of each priced unit a prediction takes (before: expected, after: measured). None is unknown."""

    predictions: float | None = 1
    seconds: float | None = None  # run time at the provider
    images: float | None = None
    megapixels: float | None = None
    video_seconds: float | None = None
    audio_seconds: float | None = None
    characters: float | None = None
    input_tokens: float | None = None
    output_tokens: float | None = None
    steps: float | None = None
    units: float | None = None  # whatever a provider bills in and tells: billable units, credits


class Price(msgspec.Struct, kw_only=True, frozen=True, omit_defaults=True, cache_hash=True):
    """
    Nano-dollars per unit; a price may have several parts, which add up. All None: unknown.

    Fields `per_X` answer to `Units.Xs` by `PRICED_UNITS`. Where there are `tiers`, the first that fits the input holds
    alone, and the parts where none fits.
    """

    per_prediction: int | None = None
    per_second: int | None = None
    per_image: int | None = None
    per_megapixel: int | None = None
    per_video_second: int | None = None
    per_audio_second: int | None = None
    per_character: int | None = None
    per_input_token: int | None = None
    per_output_token: int | None = None
    per_step: int | None = None
    per_unit: int | None = None
    tiers: tuple[Tier, ...] = ()

    @property
    def is_known(self) -> bool:
        """Whether it can be known, that is: it may hang on an input that does not say."""
        return bool(self.parts or self.tiers)

    @property
    def parts(self) -> tuple[tuple[str, int], ...]:
        """(unit, nano-dollars for one of it), as `Units` calls the units. Without the tiers'."""
        return _parts(self)

    @property
    def units(self) -> frozenset[str]:
        """All that it may be reckoned by, in whatever tier."""
        return _units(self)

    def at(self, fact: Callable[[str], Any]) -> Price:
        """
        The price without tiers that holds where `fact` gives what the input states, None for what it does not.

        Where it cannot be told whether a tier holds, the price is unknown: never the cheapest by silence.
        """
        for tier in self.tiers:
            holds = tier.holds(fact)
            if holds is None:
                return UNKNOWN_PRICE
            if holds:
                return tier.price
        return _without_tiers(self)

    def of(self, units: Units) -> int | None:
        """
        Nano-dollars for `units`, rounded half up; None if the price or a unit it needs is unknown or absurd.

        Tiers want to be chosen from before, by `at`: until then it is unknown.
        """
        if self.tiers:
            return None
        parts = _parts(self)
        total = 0.0
        for unit, rate in parts:
            amount = getattr(units, unit)
            if amount is None:
                return None
            total += rate * amount
        return int(total + 0.5) if parts and total < MAX_NANOS else None


class Tier(msgspec.Struct, kw_only=True, frozen=True):
    """A price for inputs of which all of `when` holds: (fact, what it must be)."""

    when: tuple[tuple[str, Condition], ...]
    price: Price

    @property
    def text(self) -> str:
        """`resolution 1080p, audio true`."""
        return ", ".join(f"{name} {condition.text}" for name, condition in self.when)

    def holds(self, fact: Callable[[str], Any]) -> bool | None:
        """None where something that is not stated would decide it."""
        told: bool | None = True
        for name, condition in self.when:
            holds = condition.holds(fact(name))
            if holds is False:
                return False
            if holds is None:
                told = None
        return told


UNKNOWN_PRICE = Price()

# What a tier may ask for beside the keys of an input: numbers, and two that models call by many names.
RESOLUTION, AUDIO, IMAGE_MEGAPIXELS = "resolution", "audio", "image_megapixels"
UNIT_FACTS = frozenset(Units.__struct_fields__) - {"predictions", "seconds", "units"}

# What providers call the units that they report.
REPORTED_AS: dict[str, tuple[str, ...]] = {
    "seconds": ("predict_time",),
    "images": ("image_count", "image_output_count"),
    "megapixels": ("image_output_megapixel_count", "megapixel_count"),
    "video_seconds": ("video_output_duration_seconds", "video_duration_seconds"),
    "audio_seconds": ("audio_output_duration_seconds", "audio_duration_seconds"),
    "characters": ("character_input_count", "character_count", "characters"),
    "input_tokens": ("input_token_count", "prompt_tokens", "input_tokens"),
    "output_tokens": ("output_token_count", "completion_tokens", "output_tokens"),
    "units": ("billable_units", "credits"),
}

PRICED_UNITS: dict[str, str] = {
    "per_prediction": "predictions",
    "per_second": "seconds",
    "per_image": "images",
    "per_megapixel": "megapixels",
    "per_video_second": "video_seconds",
    "per_audio_second": "audio_seconds",
    "per_character": "characters",
    "per_input_token": "input_tokens",
    "per_output_token": "output_tokens",
    "per_step": "steps",
    "per_unit": "units",
}


def read_when(said: Mapping[str, Any]) -> tuple[tuple[str, Condition], ...]:
    """A tier's `when`, as it is written. Raises ValueError, also for a condition that could never be told."""
    when = tuple((name, read_condition(value)) for name, value in said.items())
    for name, condition in when:
        is_yes_no = bool(condition.words) and all(isinstance(word, bool) for word in condition.words)
        is_text = bool(condition.words) and all(isinstance(word, str) for word in condition.words)
        is_number = not any(isinstance(word, (bool, str)) for word in condition.words)
        if name == AUDIO and not is_yes_no:
            raise ValueError(f"{name} is true or false; write one of them")
        if name == RESOLUTION and not is_text:
            raise ValueError(f'{name} is text; write "720p", or bound {IMAGE_MEGAPIXELS}')
        if (name == IMAGE_MEGAPIXELS or name in UNIT_FACTS) and not is_number:
            raise ValueError(f"{name} is a number; write one, or bounds as {{ at_least = 2 }}")
    return when


@functools.lru_cache(maxsize=4096)
def _parts(price: Price) -> tuple[tuple[str, int], ...]:
    """Kept, since every plan reckons with every price, and most have one part of ten."""
    rates = ((unit, getattr(price, part)) for part, unit in PRICED_UNITS.items())
    return tuple((unit, rate) for unit, rate in rates if rate is not None)


@functools.lru_cache(maxsize=4096)
def _units(price: Price) -> frozenset[str]:
    return frozenset(unit for one in (price, *(tier.price for tier in price.tiers)) for unit, _ in _parts(one))


@functools.lru_cache(maxsize=4096)
def _without_tiers(price: Price) -> Price:
    return replace(price, tiers=()) if price.tiers else price


def parse_dollars(text: str) -> int:
    """`"0.000725"`, `"$0.05"` → nano-dollars. Raises ValueError for anything else, negative, or finer than a nano."""
    try:
        amount = Decimal(text.strip().removeprefix("$")) * NANOS
    except InvalidOperation:
        raise ValueError(f'{text!r} is no amount of dollars such as "0.05"') from None
    if not amount.is_finite() or amount < 0:
        raise ValueError(f'{text!r} is no amount of dollars such as "0.05"')
    if amount != amount.to_integral_value():
        raise ValueError(f"{text!r} is finer than a nano-dollar (nine decimals)")
    return int(amount)


def format_dollars(nanos: int | None) -> str:
    """`725000` → `$0.000725`; None → `unknown`."""
    if nanos is None:
        return "unknown"
    whole, fraction = divmod(nanos, NANOS)
    digits = f"{fraction:09d}".rstrip("0").ljust(2, "0")
    return f"${whole}.{digits}"
