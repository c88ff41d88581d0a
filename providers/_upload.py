"""Brings files of an input to a provider that takes them beforehand. What stands for them is the adapter's word."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

from gateway.contract import data_uri
from gateway.contract.errors import InputRefused, InputUnfit, TooLarge
from gateway.contract.provider import Capabilities, File
from providers._content import file_name

Upload = Callable[[File], Awaitable[str]]


async def upload_files(input: dict[str, Any], capabilities: Capabilities, upload: Upload) -> dict[str, Any]:
    """
    A copy of `input` with every data URI replaced that is too long to stay; `input` itself if there is none.

    Raises InputRefused for a file that is none, InputUnfit for one that is larger than the provider takes.
    """
    most = capabilities.max_inline_bytes if "data" in capabilities.input_forms else 0
    words: dict[str, str] = {}
    for text in dict.fromkeys(_long_files(input, most)):
        try:
            uri = await asyncio.to_thread(data_uri.parse, text, max_bytes=capabilities.max_upload_bytes)
        except data_uri.Malformed as error:
            raise InputRefused(f"a file of the input cannot be read: {error}") from None
        except TooLarge as error:
            raise InputUnfit(f"{error}, which is what the provider takes") from None
        name = file_name("input", uri.content_type)
        words[text] = await upload(File(name=name, content_type=uri.content_type, content=uri.content))
    return _replaced(input, words) if words else input


def _long_files(value: Any, most: int) -> list[str]:
    if isinstance(value, str):
        return [value] if len(value) > most and data_uri.is_data_uri(value) else []
    inner = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return [text for item in inner for text in _long_files(item, most)]


def _replaced(value: Any, words: dict[str, str]) -> Any:
    if isinstance(value, str):
        return words.get(value, value)
    if isinstance(value, dict):
        return {key: _replaced(item, words) for key, item in value.items()}
    if isinstance(value, list):
        return [_replaced(item, words) for item in value]
    return value
