"""
Finds providers' adapters by entry point, ours and others' through the same door. Gives them no secrets, opens nothing.

A distribution offers one in its metadata; the object named is called as `factory(name, options)`:

    [project.entry-points."turnout.adapters"]
    acme = "acme_turnout:AcmeAdapter"
"""

from __future__ import annotations

import functools
import sys
from collections.abc import Iterable, Mapping
from importlib.metadata import EntryPoint, entry_points
from typing import Any, NamedTuple

from gateway.contract.errors import ConfigurationError
from gateway.contract.provider import SPEC_VERSION, Adapter
from gateway.contract.wording import nearest

GROUP = "turnout.adapters"

_MEMBERS = sorted({*Adapter.__annotations__, *(name for name in vars(Adapter) if not name.startswith("_"))})


class InstalledAdapter(NamedTuple):
    name: str
    distribution: str
    version: str


def installed_adapters() -> tuple[InstalledAdapter, ...]:
    """Every adapter that could be loaded, by name. Loads none of them."""
    return tuple(
        InstalledAdapter(entry.name, _distribution(entry), entry.dist.version if entry.dist else "")
        for entry in sorted(_entries(), key=lambda entry: entry.name)
    )


def load_adapter(name: str, options: Mapping[str, Any] | None = None, *, provider: str = "") -> Adapter:
    """
    The adapter `name`, made with `options`, for the provider configured as `provider` (empty: `name`).

    Raises ConfigurationError, one line: unknown name (with the nearest known), a package that cannot be loaded, one
    made for another Turnout, or options the adapter refuses.
    """
    entry = _find(name)
    place = f"adapter {name} of {_distribution(entry)}"
    try:
        factory = entry.load()
    except Exception as error:
        raise ConfigurationError(f"{place}: it cannot be loaded ({_reason(error)}); reinstall that package") from error
    try:
        adapter = factory(provider or name, dict(options or {}))
    except ConfigurationError:
        raise
    except Exception as error:
        raise ConfigurationError(
            f"{place}: it cannot be made ({_reason(error)}); update that package or leave it out"
        ) from error
    return _checked(adapter, place)


def _checked(adapter: Any, place: str) -> Adapter:
    speaks = getattr(adapter, "spec_version", None)
    if speaks != SPEC_VERSION:
        raise ConfigurationError(
            f"{place}: it speaks version {speaks!r} of the adapter contract, and this Turnout version {SPEC_VERSION};"
            " install the release of it made for this Turnout"
        )
    missing = [member for member in _MEMBERS if not hasattr(adapter, member)]
    if missing:
        raise ConfigurationError(f"{place}: it lacks {', '.join(missing)}; it does not fulfil the adapter contract")
    fulfilled: Adapter = adapter
    return fulfilled


def _find(name: str) -> EntryPoint:
    found = [entry for entry in _entries() if entry.name == name]
    if not found:
        known = sorted({entry.name for entry in _entries()})
        near = nearest(name, known)
        remedy = f"did you mean {near!r}?" if near else f"installed are {', '.join(known) or 'none'}"
        raise ConfigurationError(f"no adapter is called {name!r}; {remedy}")
    if len(found) > 1:
        # Which of them would get the token must not depend on the order of folders on a path.
        owners = " and ".join(sorted(_distribution(entry) for entry in found))
        raise ConfigurationError(f"adapter {name} is installed twice, by {owners}; uninstall one of them")
    return found[0]


def _entries() -> Iterable[EntryPoint]:
    return _entries_on(tuple(sys.path))


@functools.lru_cache(maxsize=4)  # looking through all that is installed takes ten milliseconds, for each adapter
def _entries_on(path: tuple[str, ...]) -> tuple[EntryPoint, ...]:
    # One distribution can be seen twice on a path (an editable install over a plain one): that is still one adapter.
    found = {(entry.name, entry.value, _distribution(entry)): entry for entry in entry_points(group=GROUP)}
    return tuple(found.values())


def _distribution(entry: EntryPoint) -> str:
    return entry.dist.name if entry.dist is not None else "an unknown package"


def _reason(error: Exception) -> str:
    words = " ".join(str(error).split())[:200]
    return f"{type(error).__name__}: {words}" if words else type(error).__name__
