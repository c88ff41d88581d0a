"""How providers stand, read off their offers: which is out, why, until when. Decides no route."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from gateway.contract.model import Model
from gateway.dashboard.route import Routes
from gateway.dashboard.shape import Cell, ProviderState

Cells = tuple[Cell, ...]
_OUT = frozenset({"open", "probing"})


def provider_states(routes: Routes, models: Sequence[Model], cells: Cells, now: datetime) -> tuple[ProviderState, ...]:
    """Every provider, those that want attention first."""
    names = dict.fromkeys([*routes.providers, *(offer.provider for model in models for offer in model.offers)])
    states = [_state(routes, name, tuple(cell for cell in cells if cell.provider == name)) for name in names]
    order = ("out", "down", "forced", "degraded", "limited", "full", "ok")
    states.sort(key=lambda state: order.index(state.state))
    return tuple(states)


def _state(routes: Routes, name: str, cells: Cells) -> ProviderState:
    out = [cell for cell in cells if cell.state in _OUT]
    limited = [cell for cell in cells if cell.state == "limited"]
    forced = [cell for cell in cells if cell.forced is not None]
    limit = routes.limits.get(name, 0) or None
    in_flight = routes.in_flight(name)
    state, why, causes = "ok", "", list[Cell]()
    if not routes.is_ready(name):
        state, why = "down", "its process is not ready"
    elif out and len(out) == len(cells) and any(cell.state == "open" for cell in out):
        state, causes = ("forced" if all(cell.forced for cell in out) else "out"), out
    elif out:
        state, causes = "degraded", out
    elif limited:
        state, causes = "limited", limited
    elif limit is not None and in_flight >= limit:
        state, why = "full", f"{in_flight} in flight, which is the limit"
    elif forced:
        state, causes = "forced", forced
    ends = [cell.until for cell in causes if cell.until is not None]
    return ProviderState(
        provider=name,
        state=state,
        why=why or _why(causes, len(cells)),
        until=min(ends, default=None),
        in_flight=in_flight,
        limit=limit,
        headroom=routes.headroom(name),
    )


def _why(causes: Sequence[Cell], of: int) -> str:
    """The words for one of them, and for which models, where it is not all."""
    if not causes:
        return ""
    text = causes[0].why or causes[0].state
    if len(causes) == of:
        return text
    models = ", ".join(cell.model for cell in causes[:3]) + (f" and {len(causes) - 3} more" if len(causes) > 3 else "")
    return f"{models}: {text}"
