"""Inputs as multipart forms: files out of data URIs, all else as text. Composing the body is the driver's."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

import msgspec

from gateway.contract.provider import HttpRequest
from providers._content import is_file, part_of


def form_request(
    url: str,
    input: Mapping[str, Any],
    *,
    files_in: Collection[str] | None = None,
    headers: dict[str, str] | None = None,
    holds_until_end: bool = False,
) -> HttpRequest:
    """
    A POST of `input` as multipart/form-data. A list is one part for each of its items; None is left out.

    Files are under the names in `files_in`, or else whatever is a data URI. Raises InputRefused for a file that cannot
    be read.
    """
    form: list[tuple[str, str]] = []
    files: list[tuple[str, str, str, bytes]] = []
    for name, value in input.items():
        for item in value if isinstance(value, list) else [value]:
            if item is None:
                continue
            looks_it = is_file(item)
            if looks_it if files_in is None else name in files_in:
                files.append((name, *part_of(item, name=name.removesuffix("[]"))))
            else:
                form.append((name, _text(item)))
    if not form and not files:
        form.append(("none", ""))  # an empty form is still a form: without a part it would have no body
    return HttpRequest(
        method="POST",
        url=url,
        headers=headers or {},
        form=tuple(form),
        files=tuple(files),
        holds_until_end=holds_until_end,
    )


def _text(value: Any) -> str:
    """Text as it is; numbers, truth values and objects as JSON has them."""
    return value if isinstance(value, str) else msgspec.json.encode(value).decode()
