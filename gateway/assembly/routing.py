"""By which ways a gateway reaches its providers, and what it plans by: links, signals, breakers. Plans nothing yet."""

from __future__ import annotations

import contextlib
from collections.abc import Awaitable, Callable

import msgspec

from gateway.assembly.ground import Ground
from gateway.config.meaning import LOCAL
from gateway.dashboard.act import Forces, replay
from gateway.dashboard.route import Routes
from gateway.engine.seam import Link
from gateway.link import links_of, local_link, start_local
from gateway.routing.breaker import Breakers
from gateway.routing.planner import Planner
from gateway.routing.ramp import Ramps
from gateway.routing.signals import Board
from local_backend.attachment import AttachedBackend
from local_backend.supervisor import LocalBackend


class Routing(msgspec.Struct, kw_only=True, frozen=True):
    """`forces` are the breakers that ops hold; `catch_up` does here what ops did in other replicas."""

    local: LocalBackend | AttachedBackend | None
    links: dict[str, Link]
    board: Board
    breakers: Breakers
    forces: Forces
    catch_up: Callable[[], Awaitable[None]]
    planner: Planner
    routes: Routes


async def open_routing(ground: Ground, stack: contextlib.AsyncExitStack) -> Routing:
    """The local backend is started, and breakers that were held are held again."""
    config, clock = ground.config, ground.clock
    local = await start_local(ground.loaded, clock, ground.observer, stack, commission=ground.commission)
    links = links_of(config, ground.drivers, ground.public_url)
    if local is not None:
        links[LOCAL] = local_link(local, ground.adapters[LOCAL], clock, stack)

    def is_ready(provider: str) -> bool:
        return provider in links and (provider != LOCAL or (local is not None and local.is_ready))

    board = Board(clock)
    breakers = Breakers(clock=clock, draw=ground.draw, observer=ground.observer)
    forces = Forces(breakers)
    limits = {name: section.concurrency for name, section in config.providers.items()}
    return Routing(
        local=local,
        links=links,
        board=board,
        breakers=breakers,
        forces=forces,
        catch_up=await _held_again(ground, breakers, forces),
        planner=Planner(
            catalog=lambda: ground.catalog,
            board=board,
            breakers=breakers,
            policies=lambda: ground.loaded.policies.current().policies,
            default=config.policies.default,
            limits=limits,
            ready=is_ready,
            draw=ground.draw,
            ramps=Ramps(clock),
        ),
        routes=Routes(
            ground.catalog,
            board,
            breakers,
            providers=list(links),
            limits=limits,
            is_ready=is_ready,
            headroom=lambda name: ground.drivers[name].headroom if name in ground.drivers else None,
        ),
    )


async def _held_again(ground: Ground, breakers: Breakers, forces: Forces) -> Callable[[], Awaitable[None]]:
    """What ops did before the start is done now; and how to go on with it. The journal tells neither as news."""
    quietly = ground.journal.forcing if ground.journal is not None else contextlib.nullcontext
    with quietly():
        await replay(ground.store, breakers, offers=ground.offers, forces=forces)

    async def catch_up() -> None:
        await forces.catch_up(ground.store, offers=ground.offers, quietly=quietly)

    return catch_up
