"""Where a gateway keeps files, how it fetches them, and which addresses may be dialled for it. Reads none by itself."""

from __future__ import annotations

import contextlib
from urllib.parse import urlsplit

import msgspec

from gateway.artifact.fetch import Fetcher
from gateway.artifact.folder import Artifacts
from gateway.assembly.ground import Ground
from gateway.net.target import Guard


class Keeping(msgspec.Struct, kw_only=True, frozen=True):
    webhook_guard: Guard  # of where webhooks may go
    file_guard: Guard  # of where files may come from
    artifacts: Artifacts
    fetcher: Fetcher


def open_keeping(ground: Ground, stack: contextlib.AsyncExitStack) -> Keeping:
    """Raises ConfigurationError for a folder that cannot be had."""
    loaded, config = ground.loaded, ground.config
    own_hosts = (urlsplit(ground.public_url).netloc,)
    webhook_guard = Guard(config.webhooks.allow, allow_http=config.webhooks.allow_http, own_hosts=own_hosts)
    with loaded.blaming("artifacts", "path"):
        artifacts = Artifacts(
            loaded.artifacts_path,
            public_url=ground.public_url,
            signing_secret=ground.secret,
            max_file_bytes=config.artifacts.max_file_bytes,
            ids=ground.ids,
            clock=ground.clock,
            observer=ground.observer,
            link_seconds=config.artifacts.link_seconds,
            file_seconds=config.artifacts.file_seconds,
        )
    file_guard = Guard(config.artifacts.allow, allow_http=True, own_hosts=own_hosts)
    fetcher = Fetcher(file_guard, ground.clock)
    stack.push_async_callback(fetcher.aclose)
    return Keeping(webhook_guard=webhook_guard, file_guard=file_guard, artifacts=artifacts, fetcher=fetcher)
