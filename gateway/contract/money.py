"""Money as integers of nano-dollars, and prices by unit. Unknown is None, never 0."""

from __future__ import annotations

import enum
import functools
from decimal import Decimal, InvalidOperation

import msgspec

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


class Price(msgspec.Struct, kw_only=True, frozen=True, omit_defaults=True):
    """
    Nano-dollars per unit; a price may have several parts, which add up. All None: unknown.

    Fields `per_X` answer to `Units.Xs` by `PRICED_UNITS`.
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

    @property
    def is_known(self) -> bool:
        return bool(self.parts)

    @property
    def parts(self) -> tuple[tuple[str, int], ...]:
        """(unit, nano-dollars for one of it), as `Units` calls the units."""
        return _parts(self)

    def of(self, units: Units) -> int | None:
        """Nano-dollars for `units`, rounded half up; None if the price or a unit it needs is unknown or absurd."""
        parts = _parts(self)
        total = 0.0
        for unit, rate in parts:
            amount = getattr(units, unit)
            if amount is None:
                return None
            total += rate * amount
        return int(total + 0.5) if parts and total < MAX_NANOS else None


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


@functools.lru_cache(maxsize=4096)
def _parts(price: Price) -> tuple[tuple[str, int], ...]:
    """Kept, since every plan reckons with every price, and most have one part of ten."""
    rates = ((unit, getattr(price, part)) for part, unit in PRICED_UNITS.items())
    return tuple((unit, rate) for unit, rate in rates if rate is not None)


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
