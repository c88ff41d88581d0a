"""What changed in the catalog between two starts: models, offers, prices. Policies are watched where they are read."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from gateway.contract.model import Model
from gateway.contract.money import Price, format_dollars

Listing = Mapping[str, str]  # offer → its price in words


def listing_of(models: Iterable[Model]) -> dict[str, str]:
    return {offer.id: _price(offer.price) for model in models for offer in model.offers}


def _price(price: Price) -> str:
    plain = ", ".join(f"{format_dollars(nanos)} for {unit}" for unit, nanos in price.parts) or "no price"
    return "; ".join([*(f"{_price(tier.price)} where {tier.text}" for tier in price.tiers), plain])


def changes_between(before: Listing, after: Listing) -> list[str]:
    """`+offer`, `-offer`, and `offer: price → price`, in order of offers."""
    changes = []
    for offer in sorted(before.keys() | after.keys()):
        if offer not in before:
            changes.append(f"+{offer}")
        elif offer not in after:
            changes.append(f"-{offer}")
        elif before[offer] != after[offer]:
            changes.append(f"{offer}: {before[offer]} → {after[offer]}")
    return changes
