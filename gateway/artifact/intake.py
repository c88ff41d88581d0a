"""Brings the files in an input into a form that a provider takes and can reach. Maps no other field."""

from __future__ import annotations

import asyncio
from collections.abc import Collection
from datetime import datetime
from typing import Any, Protocol

from gateway.artifact.collect import is_http_url
from gateway.artifact.content import UNTYPED, extension
from gateway.artifact.fetch import Download, Fetcher, FetchFailed, FetchTooLarge
from gateway.artifact.folder import Artifacts, Opened
from gateway.artifact.links import OwnLink
from gateway.artifact.slots import Slot, copy_with_slots
from gateway.contract import data_uri
from gateway.contract.clock import Clock
from gateway.contract.errors import InputRefused, InputUnfit, TooLarge
from gateway.contract.provider import Capabilities


class Upload(Protocol):
    """A row of the store's files, as far as it matters here."""

    @property
    def id(self) -> str: ...
    @property
    def owner(self) -> str: ...
    @property
    def artifact(self) -> str: ...
    @property
    def content_type(self) -> str: ...
    @property
    def expires_at(self) -> datetime: ...


class Uploads(Protocol):
    """The part of the store that is needed."""

    async def get_file(self, id: str, *, owner: str | None) -> Upload | None: ...


class Intake:
    """The engine's Intake."""

    def __init__(self, artifacts: Artifacts, fetcher: Fetcher, uploads: Uploads, clock: Clock) -> None:
        self._artifacts = artifacts
        self._fetcher = fetcher
        self._uploads = uploads
        self._clock = clock

    async def fit(
        self,
        input: dict[str, Any],
        *,
        owner: str,
        capabilities: Capabilities,
        reaches_us: bool,
        file_keys: Collection[str] | None = None,
        prediction: str = "",
    ) -> dict[str, Any]:
        """
        A copy of `input` with its files as the provider takes them; `input` itself if there is nothing to do.

        A file is a string that is wholly a data URI or one of our own URLs. A stranger's URL stays as it is where the
        provider takes URLs, else it is fetched and inlined; with `file_keys` only under those keys, so that a prompt
        that is a URL stays a prompt.

        Raises InputRefused for a file that nobody could have, InputUnfit for one that only this provider cannot take.
        """
        form = _Form(capabilities, reaches_us)

        def is_file(text: str) -> bool:
            if text.startswith("data:"):
                return data_uri.is_data_uri(text)
            return is_http_url(text) and (not form.takes_urls or self._artifacts.links.read(text) is not None)

        root, slots = copy_with_slots(input, is_file)
        changed = False
        for slot in slots:
            fitted = await self._fit(slot, owner, form, file_keys, prediction)
            changed |= fitted is not slot.text
            slot.fill(fitted)
        return root[0] if changed else input

    async def _fit(
        self, slot: Slot, owner: str, form: _Form, file_keys: Collection[str] | None, prediction: str
    ) -> str:
        if slot.text.startswith("data:"):
            return await self._fit_inline(slot, owner, form, prediction or owner)
        link = self._artifacts.links.read(slot.text)
        if link is not None:
            return await self._fit_own(slot, link, owner, form)
        if file_keys is not None and slot.top not in file_keys:
            return slot.text
        return await self._fit_foreign(slot, form)

    async def _fit_inline(self, slot: Slot, owner: str, form: _Form, prediction: str) -> str:
        if form.takes_data and len(slot.text) <= form.max_inline_bytes:
            return slot.text
        if not form.can_link:
            if form.takes_upload and len(slot.text) <= form.max_bytes:
                return slot.text  # the driver will upload it
            raise form.unfit(slot, len(slot.text))
        try:
            uri = await asyncio.to_thread(data_uri.parse, slot.text, max_bytes=self._artifacts.max_file_bytes)
        except (data_uri.Malformed, TooLarge) as error:
            raise InputRefused(f"input{slot.path}: {error}") from error
        token = self._artifacts.links.input_token(prediction, slot.text, self._artifacts.periods()[-1])
        kept = await self._artifacts.keep(
            uri.content,
            owner=owner,
            name="input" + extension(uri.content_type),
            content_type=uri.content_type,
            token=token,
        )
        return self._artifacts.link(token, kept.name)

    async def _fit_own(self, slot: Slot, link: OwnLink, owner: str, form: _Form) -> str:
        if link.artifact_token is not None:
            opened = await self._artifacts.open(link.artifact_token)
            url, content_type = slot.text, None
        else:
            upload = await self._uploads.get_file(link.file_id, owner=link.owner or owner) if link.file_id else None
            if upload is None or upload.expires_at <= self._clock.now():
                raise _missing(slot)
            opened = await self._artifacts.open(upload.artifact)
            url, content_type = self._artifacts.links.download(upload.id, upload.owner), upload.content_type
        if opened is None:
            raise _missing(slot)
        if form.can_link:
            return url
        return await self._inline(slot, opened, content_type or opened.content_type, form)

    async def _inline(self, slot: Slot, opened: Opened, content_type: str, form: _Form) -> str:
        length = data_uri.encoded_length(opened.size_bytes, content_type)
        if not form.takes_bytes or length > form.max_bytes:
            raise form.unfit(slot, length)
        try:
            content = await asyncio.to_thread(opened.path.read_bytes)
        except OSError as error:
            raise _missing(slot) from error
        return await asyncio.to_thread(data_uri.build, content, content_type)

    async def _fit_foreign(self, slot: Slot, form: _Form) -> str:
        if not form.takes_bytes:
            raise form.unfit(slot, None)

        async def take(download: Download) -> tuple[bytes, str]:
            return await download.read(), download.content_type

        max_bytes = min(self._artifacts.max_file_bytes, form.max_bytes // 4 * 3)
        try:
            content, declared = await self._fetcher.fetch(slot.text, take, max_bytes=max_bytes)
        except FetchTooLarge as error:
            raise InputUnfit(f"input{slot.path}: {error}, which is what the provider takes") from error
        except FetchFailed as error:
            raise InputRefused(f"input{slot.path}: the file could not be fetched: {error}") from error
        content_type = declared.partition(";")[0].strip().lower() or UNTYPED
        length = data_uri.encoded_length(len(content), content_type)
        if length > form.max_bytes:
            raise form.unfit(slot, length)
        return await asyncio.to_thread(data_uri.build, content, content_type)


class _Form:
    """How files may be given to one provider."""

    def __init__(self, capabilities: Capabilities, reaches_us: bool) -> None:
        self.takes_urls = "url" in capabilities.input_forms
        self.takes_data = "data" in capabilities.input_forms
        self.takes_upload = "upload" in capabilities.input_forms
        self.takes_bytes = self.takes_data or self.takes_upload
        self.can_link = self.takes_urls and reaches_us
        self.max_inline_bytes = capabilities.max_inline_bytes
        # Of a data URI that leaves here: what is too long to stay inline is uploaded by the driver.
        most_uploaded = data_uri.encoded_length(capabilities.max_upload_bytes, "") if self.takes_upload else 0
        self.max_bytes = max(self.max_inline_bytes if self.takes_data else 0, most_uploaded)

    def unfit(self, slot: Slot, length: int | None) -> InputUnfit:
        if self.takes_bytes and length is not None:
            why = f"it takes {length} bytes inline, and the provider at most {self.max_bytes}"
        elif self.takes_urls:
            why = "the provider takes only URLs, and cannot reach ours"
        else:
            why = "the provider takes no files"
        return InputUnfit(f"input{slot.path}: {why}")


def _missing(slot: Slot) -> InputRefused:
    return InputRefused(f"input{slot.path}: file not found")
