"""Fakes in a configuration, as ops would write their providers and the model that each of them serves."""

from __future__ import annotations

import json
from typing import Any

from gateway.contract.provider import Auth
from tests.e2e.fakes import script as scripts
from tests.e2e.fakes.provider import RecordedProvider

ADDRESSES = {"baseten": ("host",), "bedrock": ("bucket_url",)}  # options that say where something of theirs is


def provider_section(name: str, fake: RecordedProvider, environ: dict[str, str]) -> str:
    """The provider `name`; what its credentials refer to is added to `environ`."""
    options = scripts.provider_options(fake.word) | fake.script.recording.options | {"min_poll_seconds": 0.05}
    options |= dict.fromkeys(ADDRESSES.get(fake.word, ()), fake.url)
    lines = [f"[providers.{name}]", f'adapter = "{fake.word}"', f'base_url = "{fake.url}"']
    lines += [f"options = {inline(options)}", "callbacks = false", "hold_seconds = 1"]
    way = credentials(fake)
    if way is not None:
        parts = {}
        for part in way.parts.keys() - way.optional:
            variable = f"FAKE_{name}_{part}".upper()
            environ[variable] = f"secret-of-{name}-{part}"
            parts[part] = f"env:{variable}"
        lines.append(f"credentials = {inline(parts)}")
    return "\n".join(lines) + "\n"


def model_section(fake: RecordedProvider, *, providers: tuple[str, ...], price: str = "") -> str:
    """`fakes/{word}`, whose input is the recording's, at these providers. Its schema is the file any.json."""
    call = fake.script.call
    lines = ["[[models]]", f'name = "fakes/{fake.word}"', 'schema = "any.json"']
    for provider in providers:
        lines += ["[[models.offers]]", f'provider = "{provider}"', f"name = {json.dumps(call.name)}"]
        lines.append(f"options = {inline(call.options)}")
        if price:
            lines.append(f'price = {{ per_prediction = "{price}" }}')
        if call.version and len(call.version) == 64:
            lines.append(f'version = "{call.version}"')
    return "\n".join(lines) + "\n"


def credentials(fake: RecordedProvider) -> Auth | None:
    """The first way that needs no exchange with a third party."""
    return next((way for way in fake.script.adapter.auth if "service_account" not in way.parts), None)


def inline(value: Any) -> str:
    """TOML on one line."""
    if isinstance(value, dict):
        return "{" + ", ".join(f"{json.dumps(key)} = {inline(item)}" for key, item in value.items()) + "}"
    if isinstance(value, (list, tuple)):
        return "[" + ", ".join(map(inline, value)) + "]"
    return json.dumps(value)
