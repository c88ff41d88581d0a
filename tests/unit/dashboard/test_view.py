"""The overview tells the truth: which provider is out and why, what is stuck, what it costs, who does not listen."""

from __future__ import annotations

from typing import Any

import pytest
from msgspec.structs import replace

from gateway.contract.attempt import AttemptStatus
from gateway.contract.errors import Blame, ModelFailed
from gateway.contract.model import Model, Version
from gateway.contract.observer import Observer
from gateway.contract.prediction import Prediction
from gateway.contract.reason import Reason
from gateway.contract.route import Choice, Offer, Plan
from gateway.dashboard.journal import Journal
from gateway.dashboard.route import Routes
from gateway.dashboard.shape import Cell, Overview, ProviderState
from gateway.dashboard.view import Policies, View, quantile
from gateway.routing.breaker import Breakers
from gateway.routing.catalog import Catalog
from gateway.routing.signals import Board
from gateway.store.protocol import Backlog
from gateway.testing import ManualClock
from tests.unit.dashboard.making import START, after, attempt, prediction
from tests.unit.dashboard.test_journal import lived


def offer(provider: str, model: str = "acme/upscale", *, is_fallback: bool = False) -> Offer:
    return Offer(
        id=f"{model}@{provider}", model=model, provider=provider, name="x", version="a" * 64, is_fallback=is_fallback
    )


def model(slug: str, *offers: Offer) -> Model:
    owner, _, name = slug.partition("/")
    version = Version(id=("a" if slug == "acme/upscale" else "b") * 64, created_at=START, schema={})
    return Model(
        owner=owner,
        name=name,
        description="",
        default_version=version.id,
        versions=(version,),
        offers=offers,
        created_at=START,
    )


NORTH, SOUTH, LOCAL = offer("north"), offer("south"), offer("local", is_fallback=True)
OTHER = offer("north", "acme/other")


class World:
    def __init__(self, *models: Model) -> None:
        self.clock = ManualClock(START)
        self.journal = Journal(self.clock, version="1.2.3")
        self.board = Board(self.clock)
        self.breakers = Breakers(clock=self.clock, draw=lambda: 0.5, observer=Observer())
        self.catalog = Catalog(models or [model("acme/upscale", NORTH, SOUTH, LOCAL), model("acme/other", OTHER)])
        self.open: list[Prediction] = []
        self.dead: set[str] = set()
        self.limits = {"south": 2}
        self.routes = Routes(
            self.catalog,
            self.board,
            self.breakers,
            providers=["north", "south", "local"],
            limits=self.limits,
            is_ready=lambda name: name not in self.dead,
            headroom={"north": 0.25}.get,
        )
        self.view = View(
            self.journal,
            self.routes,
            clock=self.clock,
            version="1.2.3",
            policies=lambda: Policies(("balanced",), "abc"),
            open_predictions=lambda: self.open,
            is_draining=lambda: False,
            budget_nanos=20_000_000_000,
        )

    def overview(self, *backlog: Backlog) -> Overview:
        return self.view.overview(backlog)

    def provider(self, name: str) -> ProviderState:
        return next(one for one in self.overview().providers if one.provider == name)

    def cell(self, id: str) -> Cell:
        return next(one for one in self.overview().matrix.cells if one.offer == id)

    def break_(self, id: str) -> None:
        for _ in range(5):
            ticket = self.breakers.admit(id)
            assert ticket is not None
            ticket.failure(Blame.PROVIDER)


@pytest.fixture
def world() -> World:
    return World()


def test_an_idle_gateway_shows_its_routes_and_no_trouble(world: World) -> None:
    overview = world.overview()
    assert [(one.provider, one.state) for one in overview.providers] == [
        ("north", "ok"),
        ("south", "ok"),
        ("local", "ok"),
    ]
    assert overview.matrix.models == ("acme/other", "acme/upscale")
    assert overview.matrix.providers == ("north", "south", "local")
    assert len(overview.series) == 60
    assert overview.burn.unknown_share is None
    assert (overview.burn.budget_nanos, overview.policy_version) == (20_000_000_000, "abc")
    assert (overview.troubles, overview.stuck, overview.receivers, overview.latency) == ((), (), (), ())
    assert world.provider("north").headroom == 0.25


def test_a_provider_is_degraded_while_one_of_its_offers_is_out_and_out_with_all(world: World) -> None:
    world.break_(NORTH.id)
    degraded = world.provider("north")
    assert (degraded.state, degraded.why) == ("degraded", "acme/upscale: 5 failures in a row; open for 15 s")
    world.break_(OTHER.id)
    out = world.provider("north")
    assert (out.state, out.why, out.until) == ("out", "5 failures in a row; open for 15 s", after(15))
    assert world.overview().providers[0].provider == "north"
    cell = world.cell(NORTH.id)
    assert (cell.state, cell.until) == ("open", after(15))
    world.clock.advance(16)
    assert world.provider("north").state == "degraded"
    cell = world.cell(NORTH.id)
    assert (cell.state, cell.until) == ("probing", None)
    assert cell.why.endswith("the next prediction probes it")


def test_what_was_forced_says_so_whatever_traffic_does(world: World) -> None:
    world.breakers.of(SOUTH.id).force_open(who="ops", why="they bill twice")
    south = world.provider("south")
    assert (south.state, south.why, south.until) == ("forced", "opened by ops: they bill twice", None)
    assert (world.cell(SOUTH.id).state, world.cell(SOUTH.id).forced) == ("open", "open")
    assert world.breakers.admit(SOUTH.id) is None
    world.breakers.of(NORTH.id).force_closed(who="ops", why="we need it")
    world.break_(NORTH.id)
    cell = world.cell(NORTH.id)
    assert (cell.state, cell.forced, cell.why) == ("closed", "closed", "held closed by ops: we need it")
    assert world.provider("north").state == "forced"
    world.breakers.of(NORTH.id).release(who="ops", why="over")
    assert (world.provider("north").state, world.cell(NORTH.id).why) == ("ok", "")


def test_limited_full_and_down_are_told_apart(world: World) -> None:
    flight = world.board.attempt_begun(NORTH.id)
    world.board.attempt_ended(flight, blame=Blame.THROTTLE, retry_after_seconds=30)
    assert (world.cell(NORTH.id).state, world.cell(NORTH.id).until) == ("limited", after(30))
    assert world.provider("north").state == "limited"
    for _ in range(2):
        world.board.attempt_begun(SOUTH.id)
    south = world.provider("south")
    assert (south.state, south.in_flight, south.limit) == ("full", 2, 2)
    world.dead.add("local")
    assert world.provider("local").state == "down"


def test_what_serves_a_model_alone_is_no_fallback() -> None:
    alone = offer("local", "acme/alone", is_fallback=True)
    world = World(model("acme/upscale", NORTH, LOCAL), model("acme/alone", alone))
    assert world.cell(LOCAL.id).is_fallback
    assert not world.cell(alone.id).is_fallback


def test_cells_share_success_and_price_are_of_what_happened(world: World) -> None:
    for _ in range(3):
        lived(world.journal, prediction(attempt(ended=1.1, nanos=400)))
    failed = attempt(failure=ModelFailed("no"), nanos=100)
    lived(world.journal, prediction(failed, attempt(2, "south", begun=1, ended=3, nanos=None)))
    north, south = world.cell(NORTH.id), world.cell(SOUTH.id)
    assert (north.share, north.attempts, north.success, north.mean_nanos, north.p50) == (0.8, 4, 0.75, 400, 1.0)
    assert (south.share, south.success, south.mean_nanos, south.p95) == (0.2, 1.0, None, 2.0)
    overview = world.overview()
    assert (overview.totals.succeeded, overview.totals.rescued) == (4, 1)
    assert (overview.burn.settled_nanos, overview.burn.wasted_nanos) == (1_300, 100)
    assert overview.burn.unknown_share == pytest.approx(1 / 5)
    assert [(one.provider, one.code, one.owners) for one in overview.troubles] == [
        ("north", "model_failed", {"alice": 1})
    ]
    [latency] = overview.latency
    assert (latency.model, latency.ended, latency.p50) == ("acme/upscale", 4, 2.0)
    assert sum(point.succeeded for point in overview.series) == 4
    assert overview.series[-1].nanos == 1_300


def test_the_pipeline_shows_stage_and_age_and_money_that_is_out(world: World) -> None:
    world.clock.advance(120)
    world.open = [
        prediction(ended=None, created_at=after(115)),
        prediction(attempt(ended=None, status=AttemptStatus.ACCEPTED), ended=None, created_at=after(80)),
        prediction(attempt(ended=None, running=1), ended=None),
        prediction(attempt(status=AttemptStatus.COLLECTING), ended=None, created_at=after(119)),
        prediction(attempt(ended=None, status=AttemptStatus.UNKNOWN), ended=None, created_at=after(119)),
        prediction(attempt(), attempt(2, ended=None), ended=3),  # over: only its losers are being stopped
    ]
    waiting = Backlog(
        host="dead.example", waiting=3, failing=1, ages=(1, 1, 0, 1), oldest_at=START, last_error="no route"
    )
    fine = Backlog(host="fine.example", waiting=1, failing=0, ages=(1, 0, 0, 0), oldest_at=after(119), last_error=None)
    overview = world.overview(waiting, fine)
    assert [(one.stage, one.count, one.oldest_seconds, one.ages) for one in overview.pipeline] == [
        ("queued", 3, 40.0, (2, 1, 0, 0)),
        ("running", 1, 120.0, (0, 0, 1, 0)),
        ("collecting", 1, 1.0, (1, 0, 0, 0)),
        ("delivering", 4, 120.0, (2, 1, 0, 1)),
    ]
    assert overview.totals.open == 5
    assert (overview.burn.reserved_nanos, overview.burn.maybe, overview.burn.maybe_nanos) == (6_000_000, 1, 2_000_000)
    assert [(one.host, one.waiting, one.last_error) for one in overview.receivers] == [("dead.example", 3, "no route")]


@pytest.mark.parametrize(
    ("one", "why"),
    [
        (prediction(ended=None), "nobody has taken it for 50 s"),
        (
            replace(
                prediction(ended=None),
                plan=Plan(
                    policy="p",
                    choices=(
                        Choice(
                            offer=NORTH.id,
                            provider="north",
                            kept=False,
                            reasons=(Reason(code="breaker", written="its breaker is open"),),
                        ),
                    ),
                    max_attempts=1,
                    pay_twice_up_to_nanos=0,
                ),
            ),
            "nobody has taken it for 50 s: north, its breaker is open",
        ),
        (prediction(ended=None, deadline_at=after(20)), "its deadline passed 30 s ago"),
        (
            prediction(attempt(ended=None), ended=None, cancel_requested_at=after(5)),
            "a cancel was asked for 45 s ago",
        ),
        (
            prediction(attempt(ended=None, status=AttemptStatus.UNKNOWN, unknown_at=after(10)), ended=None),
            "north has not said for 40 s whether it runs",
        ),
        (prediction(attempt(ended=None, running=1), ended=None), None),
        (prediction(attempt(ended=None, running=1), ended=None, created_at=after(-200)), "open for 4 min 10 s, where"),
    ],
)
def test_a_stuck_prediction_says_why(world: World, one: Prediction, why: str | None) -> None:
    lived(world.journal, prediction(attempt(), ended=2))
    world.clock.advance(50)
    world.open = [one]
    stuck = world.overview().stuck
    assert len(stuck) == (why is not None)
    if why is not None:
        assert stuck[0].why.startswith(why)


def test_the_overview_of_a_standstill_does_not_change_with_the_time_alone(world: World) -> None:
    world.break_(NORTH.id)
    first = world.overview()
    world.clock.advance(0.3)
    again = world.overview()
    assert replace(again, now=first.now) == first


@pytest.mark.parametrize(
    ("values", "share", "expected"),
    [([], 0.5, None), ([3.0], 0.95, 3.0), ([1.0, 2.0], 0.5, 1.0), ([1.0, 2.0, 3.0], 0.5, 2.0)],
)
def test_a_quantile_is_a_value_that_was_measured(values: list[float], share: float, expected: Any) -> None:
    assert quantile(values, share) == expected


def test_the_95th_of_a_hundred_is_the_95th() -> None:
    assert quantile([float(n) for n in range(1, 101)], 0.95) == 95.0
