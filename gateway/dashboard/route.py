"""How offers and providers stand at this moment, from the parts that routing works with. Changes none of them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from gateway.contract.model import Model
from gateway.contract.route import Signals
from gateway.routing.breaker import Breakers
from gateway.routing.catalog import Catalog
from gateway.routing.signals import Board
from gateway.routing.standing import Standing


class Routes:
    """
    `limits`: most attempts in flight by provider, absent or 0 is any number. `headroom`: 0…1 of a provider's rate
    limit that is left, None if it does not tell. `providers`: all that are configured.
    """

    def __init__(
        self,
        catalog: Catalog,
        board: Board,
        breakers: Breakers,
        *,
        providers: Sequence[str],
        limits: Mapping[str, int],
        is_ready: Callable[[str], bool],
        headroom: Callable[[str], float | None],
    ) -> None:
        self._catalog = catalog
        self._board = board
        self._breakers = breakers
        self.providers = providers
        self.limits = limits
        self.is_ready = is_ready
        self.headroom = headroom

    def models(self) -> Sequence[Model]:
        return self._catalog.models()

    def offers(self) -> list[str]:
        return [offer.id for model in self._catalog.models() for offer in model.offers]

    def signals(self, offer: str) -> Signals:
        return self._board.snapshot(offer)

    def standing(self, offer: str) -> Standing:
        return self._breakers.standing(offer)

    def in_flight(self, provider: str) -> int:
        return self._board.in_flight(provider)
