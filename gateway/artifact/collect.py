"""Copies the files that an output names into our keeping, before the provider forgets them. Decides no outcome."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import math
from collections.abc import AsyncIterator, Awaitable, Callable
from datetime import datetime
from typing import Any

import httpx

from gateway.artifact.content import contradiction, extension
from gateway.artifact.fetch import Download, Fetcher, FetchFailed, origin
from gateway.artifact.folder import Artifacts, Kept
from gateway.artifact.slots import Slot, copy_with_slots
from gateway.contract import data_uri
from gateway.contract.attempt import Attempt
from gateway.contract.errors import ProviderFailure, ResultLost, TooLarge
from gateway.contract.prediction import Prediction

MOST_FILES = 1_000  # of one output
MOST_FULL_FILES = 20  # all its files together may take as much as so many of the largest
PAUSE_SECONDS = (2.0, 5.0, 10.0, 20.0, 30.0)  # between rounds of tries for a file that cannot be had for the moment

CredentialsFor = Callable[[str], Awaitable[dict[str, str]]]


class Trust:
    """
    What a provider's `trusted_hosts` and `direct_hosts` mean.

    "host" or "host:port" is an origin, ".domain" covers the hosts below it. What is trusted is dialled through the
    guard: it is the vendor who says where its names lead. Direct origins are dialled as they are, and may be private:
    ops wrote them.
    """

    def __init__(self, trusted_hosts: tuple[str, ...], direct_hosts: tuple[str, ...] = ()) -> None:
        self._suffixes = tuple(host.lower() for host in trusted_hosts if host.startswith("."))
        self.direct = _origins(direct_hosts)
        self._exact = _origins(trusted_hosts) | self.direct

    def covers(self, url: str) -> bool:
        try:
            parsed = httpx.URL(url)
        except (httpx.InvalidURL, ValueError):
            return False
        return origin(parsed) in self._exact or parsed.host.endswith(self._suffixes)


class Collector:
    """The engine's Collector. `fetcher` bounds how many files are on their way at once."""

    def __init__(self, artifacts: Artifacts, fetcher: Fetcher) -> None:
        self._artifacts = artifacts
        self._fetcher = fetcher

    async def collect(
        self,
        prediction: Prediction,
        attempt: Attempt,
        output: Any,
        *,
        trusted_hosts: tuple[str, ...],
        direct_hosts: tuple[str, ...] = (),
        credentials_for: CredentialsFor | None = None,
        until: datetime | None = None,
    ) -> Any:
        """
        `output` with our links in the place of its files; the very same object if it names none.

        `credentials_for` gives the headers that a URL is fetched with; they go to that URL, and nowhere it leads to.

        A file's token derives from prediction, attempt and place, so that a repeat gives the same links and copies
        nothing twice. What fails for the moment is tried again, ever more rarely, as long as the provider keeps it:
        `until`. Of all files that wait, the first to be forgotten go first. Raises ResultLost,
        and StoreUnavailable if our own disk is the trouble.
        """
        trust = Trust(trusted_hosts, direct_hosts)
        is_file_output = prediction.request.file_output

        def is_file(text: str) -> bool:
            if text.startswith("data:"):
                return data_uri.is_data_uri(text)
            if not is_http_url(text) or self._artifacts.links.read(text) is not None:
                return False
            return is_file_output or trust.covers(text)

        root, slots = copy_with_slots(output, is_file)
        if not slots:
            return output
        first: dict[str, Slot] = {}
        for slot in slots:
            first.setdefault(slot.text, slot)
        if len(first) > MOST_FILES:
            raise ResultLost(f"The output names {len(first)} files, and at most {MOST_FILES} are kept")
        left_seconds = math.inf if until is None else (until - self._fetcher.clock.now()).total_seconds()
        source = _Source(
            trust.direct,
            credentials_for,
            expires=self._fetcher.clock.monotonic() + left_seconds,
            left_bytes=MOST_FULL_FILES * self._artifacts.max_file_bytes,
        )
        links = await _all({text: self._link(slot, prediction, attempt, source) for text, slot in first.items()})
        for slot in slots:
            slot.fill(links[slot.text])
        return root[0]

    async def _link(self, slot: Slot, prediction: Prediction, attempt: Attempt, source: _Source) -> str:
        token = self._artifacts.links.output_token(prediction.id, attempt.number, slot.path)
        opened = await self._artifacts.open(token)
        if opened is not None:
            return self._artifacts.link(token, opened.name)
        try:
            if slot.text.startswith("data:"):
                kept = await self._keep_inline(slot.text, token, prediction.owner)
            else:
                kept = await self._copy_in_time(slot.text, token, prediction.owner, source)
        except data_uri.Malformed:
            if not prediction.request.file_output:
                return slot.text  # a text that only looks like one
            raise ResultLost(f"The output file at {slot.path} is a malformed data URI") from None
        except (FetchFailed, TooLarge) as error:
            raise ResultLost(f"The output file at {slot.path} could not be had: {error}") from error
        return self._artifacts.link(token, kept.name)

    async def _keep_inline(self, text: str, token: str, owner: str) -> Kept:
        uri = await asyncio.to_thread(data_uri.parse, text, max_bytes=self._artifacts.max_file_bytes)
        return await self._artifacts.keep(
            uri.content,
            owner=owner,
            name="output" + extension(uri.content_type),
            content_type=uri.content_type,
            token=token,
            is_output=True,
        )

    async def _copy_in_time(self, url: str, token: str, owner: str, source: _Source) -> Kept:
        for pause_seconds in itertools.chain(PAUSE_SECONDS, itertools.repeat(PAUSE_SECONDS[-1])):
            try:
                return await self._copy(url, token, owner, source)
            except FetchFailed as error:
                # Without a time nobody said for how long it is kept: then the few tries of the fetch must do.
                is_late = self._fetcher.clock.monotonic() + pause_seconds >= source.expires
                if not error.is_passing or is_late or math.isinf(source.expires):
                    raise
            await self._fetcher.pause(pause_seconds)
        raise AssertionError("pauses never end")

    async def _copy(self, url: str, token: str, owner: str, source: _Source) -> Kept:
        async def take(download: Download) -> Kept:
            return await self._artifacts.keep(
                _believed(download),
                owner=owner,
                name=download.name or "output" + extension(download.content_type),
                content_type=download.content_type,
                token=token,
                is_output=True,
            )

        kept = await self._fetcher.fetch(
            url,
            take,
            max_bytes=self._artifacts.max_file_bytes,
            direct=source.direct,
            headers=await source.headers(url),
            expires=source.expires,
        )
        source.left_bytes -= kept.size_bytes
        if source.left_bytes < 0:
            raise FetchFailed(f"all files together are larger than {MOST_FULL_FILES} of the largest")
        return kept


async def _believed(download: Download) -> AsyncIterator[bytes]:
    """Its bytes, once their beginning does not belie its type. Raises FetchFailed."""
    is_begun = False
    async for chunk in download.chunks():
        if not is_begun:
            _believe(download, chunk)
            is_begun = True
        yield chunk
    if not is_begun:
        _believe(download, b"")


def _believe(download: Download, head: bytes) -> None:
    why = contradiction(download.content_type, download.name, head)
    if why:
        raise FetchFailed(why, is_passing=True)


class _Source:
    """How the files of one attempt are fetched."""

    def __init__(
        self, direct: frozenset[str], credentials_for: CredentialsFor | None, *, expires: float, left_bytes: int
    ) -> None:
        self.direct = direct
        self.expires = expires  # monotonic second
        self.left_bytes = left_bytes  # of all its files together
        self._credentials_for = credentials_for

    async def headers(self, url: str) -> dict[str, str]:
        if self._credentials_for is None:
            return {}
        try:
            return await self._credentials_for(url)
        except ProviderFailure as error:
            raise FetchFailed(f"no credentials could be had for it: {error}", is_passing=True) from error


def is_http_url(text: str) -> bool:
    """True if the whole string is an http(s) URL, and not a sentence that begins with one."""
    return text[:8].lower().startswith(("https://", "http://")) and not any(character.isspace() for character in text)


def _origins(hosts: tuple[str, ...]) -> frozenset[str]:
    exact = [host.lower() for host in hosts if not host.startswith(".")]
    return frozenset(
        place for host in exact for place in ([host] if _has_port(host) else [f"{host}:443", f"{host}:80"])
    )


def _has_port(host: str) -> bool:
    return host.rpartition("]")[2].rpartition(":")[2].isdigit() and ":" in host.rpartition("]")[2]


async def _all(work: dict[str, Any]) -> dict[str, str]:
    """Everything, or the first failure: then the rest is stopped, and has ended when this returns."""
    tasks = {text: asyncio.create_task(doing) for text, doing in work.items()}
    try:
        await asyncio.gather(*tasks.values())
    except BaseException:
        for task in tasks.values():
            task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.gather(*tasks.values(), return_exceptions=True)
        raise
    return {text: task.result() for text, task in tasks.items()}
