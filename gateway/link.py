"""How a configuration's providers are reached: their drivers, and the links by which the engine holds them."""

from __future__ import annotations

import contextlib
import ipaddress
from collections.abc import Mapping
from urllib.parse import urlsplit

from gateway.commission import Commission
from gateway.config.load import Loaded
from gateway.config.meaning import LOCAL
from gateway.config.model import Config, Provider
from gateway.contract.clock import Clock
from gateway.contract.observer import Observer
from gateway.contract.provider import Adapter
from gateway.engine.seam import Link
from local_backend.attachment import AttachedBackend
from local_backend.supervisor import LocalBackend
from providers._driver import HttpDriver

_LOCAL_ANSWER_BYTES = 140_000_000  # a picture of 100 MB as base64


def drivers_of(loaded: Loaded, adapters: Mapping[str, Adapter], clock: Clock) -> dict[str, HttpDriver]:
    drivers: dict[str, HttpDriver] = {}
    for name, section in loaded.config.providers.items():
        prefix = f"providers.{name}.credentials."
        callback_secret = loaded.secrets.get(f"providers.{name}.webhook_secret")
        drivers[name] = HttpDriver(
            name,
            adapters[name],
            base_url=section.base_url,
            sites=section.sites,
            credentials={
                place.removeprefix(prefix): secret.reveal()
                for place, secret in loaded.secrets.items()
                if place.startswith(prefix)
            },
            submit_seconds=section.submit_seconds,
            poll_seconds=section.poll_seconds,
            max_connections=section.max_connections,
            callback_secrets=(callback_secret.reveal(),) if callback_secret is not None else (),
            clock=clock,
        )
    return drivers


def links_of(config: Config, drivers: Mapping[str, HttpDriver], public_url: str) -> dict[str, Link]:
    return {
        name: Link(
            driver,
            reaches_us=_reaches(config.providers[name].base_url or driver.adapter.base_url, public_url),
            callbacks=config.providers[name].callbacks and driver.capabilities.callbacks != "none",
            trusted_hosts=driver.trusted_hosts,
            direct_hosts=_direct_hosts(config.providers[name], driver.adapter),
            submit_seconds=config.providers[name].submit_seconds or None,
            hold_seconds=config.providers[name].hold_seconds,
        )
        for name, driver in drivers.items()
    }


def _direct_hosts(section: Provider, adapter: Adapter) -> tuple[str, ...]:
    """Where files may be fetched from without the guard: what ops wrote, and the loopback servers of some adapters."""
    is_at_home = not section.base_url and _is_private(urlsplit(adapter.base_url).hostname or "")
    urls = (adapter.base_url if is_at_home else section.base_url, *section.sites.values())
    said = section.options.get("result_hosts", ())
    hosts = [host for host in said if isinstance(host, str)] if isinstance(said, list | tuple) else []
    return tuple(dict.fromkeys((*(place for url in urls if (place := urlsplit(url).netloc)), *hosts)))


def _reaches(base_url: str, public_url: str) -> bool:
    """
    Whether a provider can open our public URL. A private one is only open to private providers.

    There is no way to know for sure; a callback URL nobody can reach does no harm, the poll is the guarantee.
    """
    ours, theirs = urlsplit(public_url).hostname or "", urlsplit(base_url).hostname or ""
    return not _is_private(ours) or (_is_private(theirs) and bool(theirs))


def _is_private(host: str) -> bool:
    try:
        return not ipaddress.ip_address(host).is_global
    except ValueError:
        return host == "localhost" or "." not in host or host.endswith((".local", ".internal"))


async def start_local(
    loaded: Loaded, clock: Clock, observer: Observer, stack: contextlib.AsyncExitStack, *, commission: Commission | None
) -> LocalBackend | AttachedBackend | None:
    """One of our own; for a worker that of the process which started it, and which all workers share."""
    local: LocalBackend | AttachedBackend
    if not loaded.config.local.enabled or (commission is not None and not commission.local):
        return None
    if commission is None:
        local = local_backend_of(loaded, clock, observer)
    else:
        local = AttachedBackend(commission.local, observer=observer, tells_starts=commission.number == 0)
    stack.push_async_callback(local.aclose)
    await local.start()
    return local


def local_backend_of(loaded: Loaded, clock: Clock, observer: Observer | None = None) -> LocalBackend:
    section = loaded.config.local
    return LocalBackend(
        clock=clock,
        listen=section.listen,
        packages=loaded.package_paths,
        device=section.device,
        threads=section.threads,
        max_queue=section.max_queue,
        memory_bytes=section.memory_bytes,
        observer=observer,
    )


def local_link(
    local: LocalBackend | AttachedBackend, adapter: Adapter, clock: Clock, stack: contextlib.AsyncExitStack
) -> Link:
    base_url = f"{local.address}:/v1" if local.address.startswith("unix:") else f"{local.address}/v1"
    driver = HttpDriver(LOCAL, adapter, base_url=base_url, max_answer_bytes=_LOCAL_ANSWER_BYTES, clock=clock)
    stack.push_async_callback(driver.aclose)
    return Link(
        driver, reaches_us=False, callbacks=False, trusted_hosts=driver.trusted_hosts, direct_hosts=driver.trusted_hosts
    )
