"""A public model: the name callers use, its versions and schemas."""

from __future__ import annotations

from datetime import datetime
from typing import Any

import msgspec

from gateway.contract.route import Offer


class Version(msgspec.Struct, kw_only=True, frozen=True):
    """One version of a model. `schema` is the OpenAPI document Replicate's clients expect as `openapi_schema`."""

    id: str  # 64 hex
    created_at: datetime
    schema: dict[str, Any]


class Model(msgspec.Struct, kw_only=True, frozen=True):
    """A model as callers see it, and the offers that serve it."""

    owner: str
    name: str
    description: str
    default_version: str
    versions: tuple[Version, ...]  # the default first
    offers: tuple[Offer, ...]
    created_at: datetime
    policy: str | None = None

    @property
    def slug(self) -> str:
        return f"{self.owner}/{self.name}"
