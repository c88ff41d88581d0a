"""The operations API over a real store: what ops see and do, the trail it leaves, and who is kept out."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import msgspec
import pytest

from gateway.api.operations import ROUTES
from gateway.contract.body import prediction_bytes
from gateway.contract.budget import Reservation, Rule, hold_of
from gateway.contract.clock import SeededIds
from gateway.contract.errors import ModelFailed, StoreUnavailable
from gateway.contract.fact import CancelRequested, DeadlinePassed
from gateway.contract.prediction import Prediction, Status
from gateway.contract.route import BreakerState
from gateway.dashboard.act import Acts, replay
from gateway.dashboard.operations import Operations
from gateway.dashboard.shell import Shell
from gateway.engine.lifecycle import reduce
from gateway.routing.breaker import Breakers
from gateway.store.protocol import AuditRow, Store
from gateway.store.sqlite import SqliteStore
from gateway.testing import ManualClock
from tests.unit.api.fakes import ADMIN, PUBLIC, READER, FakeFiles, Peer, World
from tests.unit.api.test_deliveries import Receivers
from tests.unit.dashboard import making, test_view
from tests.unit.dashboard.making import attempt, prediction

WHY = {"reason": "they bill twice"}
ABSENT = "0" * 26


class FakeEngine:
    is_draining = False

    def __init__(self, store: Store) -> None:
        self._store = store

    async def cancel(self, id: str, *, owner: str | None) -> Prediction | None:
        assert owner is None
        return (await self._store.apply(id, CancelRequested())).prediction


class Desk:
    """The API with real operations over a real store."""

    def __init__(self, store: SqliteStore, folder: Path) -> None:
        self.store = store
        self.routes = test_view.World()
        self.rules: tuple[Rule, ...] = ()
        self.receivers = Receivers()
        acts = Acts(
            store,
            FakeEngine(store),
            self.routes.breakers,
            self.routes.journal,
            offers=self.routes.routes.offers,
            receivers=self.receivers,
            clock=self.routes.clock,
        )
        self.files = FakeFiles(folder, SeededIds(8))
        self.operations = Operations(
            store,
            self.routes.view,
            self.routes.journal,
            acts,
            self.files,
            engine=FakeEngine(store),
            clock=self.routes.clock,
            base=PUBLIC,
            budgets=lambda: self.rules,
        )
        self.world = World(folder, operations=self.operations, shell=Shell(public_url=PUBLIC))
        self.admin = self.world.client(ADMIN.text)

    async def keep(self, one: Prediction) -> Prediction:
        return (await self.store.create(one)).prediction

    async def get(self, path: str, **query: str) -> Any:
        answer = await self.admin.get(f"/ops/v1/{path}", params=query)
        assert answer.status_code == 200, answer.text
        return answer.json()

    async def post(self, path: str, body: Any) -> httpx.Response:
        return await self.admin.post(f"/ops/v1/{path}", json=body)

    async def trail(self) -> list[tuple[str, str, str]]:
        lines = (await self.get("audit"))["lines"]
        assert all(line["who"] == "admin" for line in lines)
        return [(line["action"], line["target"], line["outcome"]) for line in lines]


@pytest.fixture
async def desk(tmp_path: Path) -> AsyncIterator[Desk]:
    store = await SqliteStore.open(
        tmp_path / "store.db",
        reduce=reduce,
        snapshot=lambda one: prediction_bytes(one, public_url=PUBLIC),
        clock=ManualClock(making.START),
    )
    yield Desk(store, tmp_path)
    await store.aclose()


# -- who may ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("route", ROUTES, ids=[route.path for route in ROUTES])
async def test_only_the_admin_scope_opens_a_route(desk: Desk, route: Any) -> None:
    for method in route.verbs:
        path = route.path.replace("{id}", ABSENT)
        assert (await desk.world.nobody.request(method, path)).status_code == 401
        for client in (desk.world.alice, desk.world.client(READER.text)):
            refused = await client.request(method, path, content=b"{")
            assert refused.status_code == 403
            if method != "HEAD":
                assert refused.json()["detail"] == 'This key has no scope "admin"'
    assert await desk.store.audit() == []


async def test_a_gateway_without_a_dashboard_has_none_of_it(tmp_path: Path) -> None:
    world = World(tmp_path)
    admin = world.client(ADMIN.text)
    for path in ("/dashboard", "/dashboard/main.js", "/ops/v1/overview", "/ops/v1/events", "/ops/v1/audit"):
        assert (await admin.get(path)).status_code == 404
    assert (await admin.post("/ops/v1/breakers", json={"offer": "x", "action": "open", **WHY})).status_code == 404


# -- looking ----------------------------------------------------------------------------------------------------------


async def test_the_overview_is_there_and_is_kept_by_nobody_on_the_way(desk: Desk) -> None:
    answer = await desk.admin.get("/ops/v1/overview")
    assert answer.headers["cache-control"] == "no-store"
    assert answer.json()["version"] == "1.2.3"
    assert {cell["offer"] for cell in answer.json()["matrix"]["cells"]} == set(desk.routes.routes.offers())


async def test_the_list_narrows_by_each_filter(desk: Desk) -> None:
    failed = await desk.keep(prediction(attempt(failure=ModelFailed("no"))))
    rescued = await desk.keep(
        prediction(attempt(failure=ModelFailed("no")), attempt(2, "south"), created_at=making.after(1))
    )
    aborted = await desk.keep(prediction(status=Status.ABORTED, created_at=making.after(2)))
    fresh = await desk.keep(prediction(ended=None, owner="bob", created_at=making.after(3), model="acme/other"))

    async def found(**query: str) -> list[str]:
        return [row["id"] for row in (await desk.get("predictions", **query))["predictions"]]

    assert await found() == [fresh.id, aborted.id, rescued.id, failed.id]
    assert await found(status="open") == [fresh.id]
    assert await found(status="failed") == [aborted.id, failed.id]
    assert await found(status="aborted") == [aborted.id]
    assert await found(status="open,succeeded") == [fresh.id, rescued.id]
    assert await found(status="ended", provider="north") == [rescued.id, failed.id]
    assert await found(model="acme/other") == await found(owner="bob") == [fresh.id]
    assert await found(rescued="1") == [rescued.id]
    assert await found(rescued="0") == await found()
    assert await found(q=failed.id[:6]) == await found(q=failed.id.upper()) == [failed.id]
    for none in ("zz", "<script>", "%", "'; DROP TABLE prediction", "ä", "x" * 500, "a b"):
        assert await found(q=none) == []
    assert await found(owner="nobody' OR 1=1") == []


async def test_pages_lead_from_one_to_the_next(desk: Desk) -> None:
    made = [await desk.keep(prediction(created_at=making.after(n))) for n in range(5)]
    first = await desk.get("predictions", limit="2")
    second = await desk.get("predictions", limit="2", position=first["next"])
    third = await desk.get("predictions", limit="2", position=second["next"])
    assert [row["id"] for page in (first, second, third) for row in page["predictions"]] == [
        one.id for one in made[::-1]
    ]
    assert third["next"] is None


@pytest.mark.parametrize(
    ("query", "status"),
    [
        ({"status": "burning"}, 422),
        ({"limit": "0"}, 422),
        ({"limit": "201"}, 422),
        ({"limit": "-1"}, 422),
        ({"limit": "ten"}, 422),
        ({"limit": "٣"}, 422),
        ({"limit": "9" * 400}, 422),
        ({"model": "m" * 201}, 422),
        ({"position": "nonsense"}, 404),
        ({"position": "WzEsMl0="}, 404),
    ],
)
async def test_a_filter_without_sense_is_refused_with_a_sentence(desk: Desk, query: Any, status: int) -> None:
    answer = await desk.admin.get("/ops/v1/predictions", params=query)
    assert answer.status_code == status
    assert answer.headers["content-type"] == "application/problem+json"
    assert answer.json()["detail"]


async def test_the_story_of_one_is_anybodys_and_shows_no_secret(desk: Desk) -> None:
    kept = await desk.files.keep(b"png", owner="alice", name="out.png", content_type="image/png")
    link = f"{PUBLIC}/artifacts/{kept.token}/out.png"
    one = await desk.keep(
        prediction(
            attempt(handle={"id": "job-1", "url": "https://secret.example"}),
            input={"api_key": "hunter2", "image": link},
            secret=("api_key",),
            output=[link],
        )
    )
    answer = await desk.admin.get(f"/ops/v1/predictions/{one.id}")
    detail = answer.json()
    assert detail["row"]["owner"] == "alice"
    assert [(file["kind"], file["size_bytes"]) for file in detail["output"]] == [("image", 3)]
    assert [file["url"] for file in detail["files"]] == [link]
    assert detail["attempts"][0]["job"] == "job-1"
    assert detail["story"][0].startswith("Accepted from alice")
    for hidden in ("hunter2", "secret.example", one.stream_token, one.attempts[0].token_hash):
        assert hidden not in answer.text


@pytest.mark.parametrize("id", [ABSENT, "x", "X" * 26, "0" * 27, "%2e%2e", "0" * 25 + "%00", "ü" * 26])
async def test_an_id_of_another_shape_or_of_nobody_is_not_found(desk: Desk, id: str) -> None:
    for answer in (
        await desk.admin.get(f"/ops/v1/predictions/{id}"),
        await desk.post(f"predictions/{id}/cancel", WHY),
        await desk.post(f"predictions/{id}/redeliver", WHY),
    ):
        assert answer.status_code == 404


# -- doing ------------------------------------------------------------------------------------------------------------


async def test_a_breaker_is_forced_and_released_and_the_trail_says_by_whom(desk: Desk) -> None:
    offer = test_view.NORTH.id
    done = await desk.post("breakers", {"offer": offer, "action": "open", **WHY})
    assert (done.status_code, done.json()["outcome"], done.json()["who"]) == (200, "done", "admin")
    assert desk.routes.breakers.admit(offer) is None
    cell = desk.routes.cell(offer)
    assert (cell.forced, cell.why) == ("open", "opened by admin: they bill twice (2026-03-04 12:00 UTC)")
    await desk.post("breakers", {"offer": offer, "action": "close", **WHY})
    assert desk.routes.cell(offer).forced == "closed"
    await desk.post("breakers", {"offer": offer, "action": "release", **WHY})
    assert desk.routes.cell(offer).forced is None
    assert await desk.trail() == [
        ("breaker.release", offer, "done"),
        ("breaker.close", offer, "done"),
        ("breaker.open", offer, "done"),
    ]
    told = desk.routes.journal.timeline.newest(5)
    assert [(one.kind, one.who) for one in told] == [("forced", "admin")] * 3


async def test_an_unknown_offer_is_answered_with_the_nearest_and_leaves_a_line(desk: Desk) -> None:
    refused = await desk.post("breakers", {"offer": "acme/upscale@nroth", "action": "open", **WHY})
    assert refused.status_code == 404
    assert refused.json()["detail"] == ('there is no offer "acme/upscale@nroth"; did you mean "acme/upscale@north"?')
    huge = await desk.post("breakers", {"offer": "\x1b[31m" + "x" * 9_000, "action": "open", **WHY})
    assert huge.status_code == 404
    assert "\x1b" not in huge.json()["detail"]
    assert [outcome[:17] for _, _, outcome in await desk.trail()] == ["there is no offer"] * 2
    assert all(len(target) <= 200 for _, target, _ in await desk.trail())


@pytest.mark.parametrize(
    ("body", "status"),
    [
        (b"", 400),
        (b"{", 400),
        (b"[]", 422),
        (b"\xff\xfe", 400),
        (b'{"offer":"a","action":"open"}', 422),
        (b'{"offer":"a","action":"open","reason":""}', 422),
        (b'{"offer":"a","action":"open","reason":" \\n\\t "}', 422),
        (b'{"offer":"a","action":"open","reason":7}', 422),
        (b'{"offer":"a","action":"explode","reason":"x"}', 422),
        (b'{"offer":"a","action":"open","reason":"x","who":"somebody else"}', 422),
        (b'{"offer":"a","action":"open","reason":"' + b"x" * 501 + b'"}', 422),
        (b'{"offer":"a","action":"open","reason":"' + b"x" * 20_000 + b'"}', 413),
        (b'{"a":' * 5_000, 413),
        (b'{"offer":' * 1_500, 422),
    ],
)
async def test_a_body_without_sense_changes_nothing_and_leaves_no_line(desk: Desk, body: bytes, status: int) -> None:
    answer = await desk.admin.post("/ops/v1/breakers", content=body)
    assert answer.status_code == status, answer.text
    assert await desk.trail() == []


async def test_a_cancel_reaches_anybodys_prediction_and_only_once(desk: Desk) -> None:
    one = await desk.keep(prediction(ended=None))
    done = await desk.post(f"predictions/{one.id}/cancel", WHY)
    assert done.json()["outcome"] == "done"
    stored = await desk.store.get(one.id)
    assert stored is not None
    assert stored.cancel_requested_at is not None
    again = await desk.post(f"predictions/{one.id}/cancel", WHY)
    assert again.status_code == 409
    ended = await desk.keep(prediction(attempt()))
    late = await desk.post(f"predictions/{ended.id}/cancel", WHY)
    assert (late.status_code, late.json()["detail"]) == (409, "the prediction has ended already: it succeeded")
    missing = await desk.post(f"predictions/{ABSENT}/cancel", WHY)
    assert missing.status_code == 404
    assert [outcome for _, _, outcome in await desk.trail()] == [
        "there is no prediction with this id",
        "the prediction has ended already: it succeeded",
        again.json()["detail"],
        "done",
    ]


async def test_a_webhook_is_sent_again_as_it_was(desk: Desk) -> None:
    one = await desk.keep(prediction(ended=None, webhook="https://hooks.example/x", deadline_at=making.START))
    early = await desk.post(f"predictions/{one.id}/redeliver", WHY)
    assert (early.status_code, early.json()["title"]) == (409, "Not possible now")
    await desk.store.apply(one.id, DeadlinePassed())
    [first] = await desk.store.claim_deliveries("w", limit=9, lease_seconds=9)
    sending = await desk.post(f"predictions/{one.id}/redeliver", WHY)
    assert (sending.status_code, "on its way" in sending.json()["detail"]) == (409, True)
    await desk.store.finish_delivery(first, ended="exhausted", error="dead")
    assert (await desk.get(f"predictions/{one.id}"))["can_redeliver"]
    done = await desk.post(f"predictions/{one.id}/redeliver", WHY)
    assert done.json()["outcome"] == "done"
    asked = [("alice", "hooks.example")] * 2  # also for the one that was on its way: should it fail, it goes again
    assert (desk.receivers.retried, desk.receivers.wakes > 0) == (asked, True)
    [again] = await desk.store.claim_deliveries("w", limit=9, lease_seconds=9)
    assert (again.id, again.body) == (first.id, first.body)
    silent = await desk.keep(prediction(attempt()))
    none = await desk.post(f"predictions/{silent.id}/redeliver", WHY)
    assert none.json()["detail"] == "its caller asked for no webhook"
    assert [(action, outcome) for action, _, outcome in await desk.trail()][1] == ("prediction.redeliver", "done")


async def test_without_a_trail_nothing_is_done(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    async def fail(row: AuditRow) -> AuditRow:
        raise StoreUnavailable("the disk is full")

    monkeypatch.setattr(desk.store, "put_audit", fail)
    refused = await desk.post("breakers", {"offer": test_view.NORTH.id, "action": "open", **WHY})
    assert refused.status_code == 503
    assert desk.routes.cell(test_view.NORTH.id).forced is None


async def test_an_act_that_stumbles_says_so_in_its_line(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    async def fail(id: str) -> Any:
        raise RuntimeError("planted")

    one = await desk.keep(prediction(attempt(), webhook="https://hooks.example/x"))
    monkeypatch.setattr(desk.store, "redeliver", fail)
    assert (await desk.post(f"predictions/{one.id}/redeliver", WHY)).status_code == 500
    assert [outcome for _, _, outcome in await desk.trail()] == ["failed: RuntimeError"]


async def test_the_trail_is_read_page_by_page(desk: Desk) -> None:
    for _ in range(3):
        await desk.post("breakers", {"offer": test_view.NORTH.id, "action": "release", **WHY})
    newest = (await desk.get("audit", limit="2"))["lines"]
    older = (await desk.get("audit", before=str(newest[-1]["id"])))["lines"]
    assert [line["id"] for line in newest + older] == [3, 2, 1]
    for bad in ({"limit": "x"}, {"before": "-1"}, {"limit": "1000"}):
        assert (await desk.admin.get("/ops/v1/audit", params=bad)).status_code == 422


async def test_what_was_forced_is_forced_again_after_a_restart(desk: Desk) -> None:
    north, south, other = test_view.NORTH.id, test_view.SOUTH.id, test_view.OTHER.id
    for offer, action in ((north, "open"), (south, "open"), (south, "release"), (other, "close")):
        await desk.post("breakers", {"offer": offer, "action": action, **WHY})
    await desk.post("breakers", {"offer": "acme/gone@x", "action": "open", **WHY})  # refused, and never held
    at = making.START
    begun = AuditRow(at=at, who="ops", action="breaker.open", target="acme/upscale@local", reason="x", outcome="begun")
    gone = AuditRow(at=at, who="ops", action="breaker.open", target="acme/gone@y", reason="x", outcome="done")
    for row in (begun, gone):
        await desk.store.put_audit(row)
    fresh = Breakers(clock=desk.routes.clock, draw=lambda: 0.5, observer=desk.routes.journal)
    held = await replay(desk.store, fresh, offers=[*desk.routes.routes.offers(), "acme/gone@x"])
    assert held == 3
    assert {id: fresh.standing(id).forced for id in (north, south, other, "acme/upscale@local", "acme/gone@x")} == {
        north: BreakerState.OPEN,
        south: None,
        other: BreakerState.CLOSED,
        "acme/upscale@local": BreakerState.OPEN,  # its process ended before it could say "done"
        "acme/gone@x": None,
    }
    assert fresh.standing(north).why == "opened by admin: they bill twice (2026-03-04 12:00 UTC)"


# -- live -------------------------------------------------------------------------------------------------------------


async def test_events_begin_with_the_overview_and_go_on_with_what_happens(desk: Desk) -> None:
    peer = Peer(desk.world, "GET", "/ops/v1/events", authorization=f"Bearer {ADMIN.text}")
    running = asyncio.create_task(peer.run())
    try:
        async with asyncio.timeout(10):
            while b"event: overview" not in peer.body:
                peer.got.clear()
                await peer.got.wait()
            one = prediction(attempt(failure=ModelFailed("<b>no</b>")))
            desk.routes.journal.prediction_created(one)
            desk.routes.journal.local_backend_changed("crashed")
            while b"event: happened" not in peer.body:
                peer.got.clear()
                await peer.got.wait()
    finally:
        peer.gone.set()
        await asyncio.wait({running}, timeout=5)
    assert running.done()
    assert peer.status == 200
    headers = dict(peer.sent[0]["headers"])
    assert headers[b"content-type"] == b"text/event-stream; charset=utf-8"
    assert headers[b"cache-control"] == b"no-store"
    blocks = [block for block in peer.body.decode().split("\n\n") if block.startswith("event: prediction\n")]
    assert msgspec.json.decode(blocks[0].partition("data: ")[2])["id"] == one.id


# -- the shell --------------------------------------------------------------------------------------------------------


async def test_the_page_needs_no_key_and_runs_nothing_foreign(desk: Desk) -> None:
    page = await desk.world.nobody.get("/dashboard")
    assert page.status_code == 200
    assert page.headers["content-type"] == "text/html; charset=utf-8"
    assert page.headers["x-content-type-options"] == "nosniff"
    assert page.headers["referrer-policy"] == "no-referrer"
    assert "script-src 'self';" in page.headers["content-security-policy"]
    assert f"img-src 'self' {PUBLIC} data: blob:;" in page.headers["content-security-policy"]
    again = await desk.world.nobody.get("/dashboard", headers={"if-none-match": page.headers["etag"]})
    assert (again.status_code, again.content) == (304, b"")
    assert (await desk.world.nobody.get("/dashboard/")).content == page.content
    assert (await desk.world.nobody.head("/dashboard")).headers["content-length"] == str(len(page.content))
    assert (await desk.world.nobody.post("/dashboard")).status_code == 405


@pytest.mark.parametrize(
    "path",
    [
        "/dashboard/../shape.py",
        "/dashboard/..%2fshape.py",
        "/dashboard/%2e%2e/shape.py",
        "/dashboard/%2e%2e%2fshape.py",
        "/dashboard/static/index.html",
        "/dashboard/nothing.js",
        "/dashboard//etc/passwd",
        "/dashboard/index.html%00",
        "/dashboardx",
    ],
)
async def test_no_path_leads_out_of_the_pages_folder(desk: Desk, path: str) -> None:
    answer = await desk.world.nobody.get(path)
    assert answer.status_code == 404


async def test_a_predictions_own_page_is_what_web_names(desk: Desk) -> None:
    body = (await desk.world.post()).json()
    assert body["urls"]["web"] == f"{PUBLIC}/dashboard#/predictions/{body['id']}"
    assert body["urls"]["get"] == f"{PUBLIC}/v1/predictions/{body['id']}"


async def test_without_a_dashboard_web_is_the_prediction_itself(tmp_path: Path) -> None:
    body = (await World(tmp_path).post()).json()
    assert body["urls"]["web"] == body["urls"]["get"]


async def test_the_ledger_tells_what_may_have_been_billed(desk: Desk) -> None:
    told = await desk.get("ledger", hours="24", limit="10")
    assert told["double_bill_upper_bound"] == {"nanos": 0, "rows": 0, "unpriced": 0}
    assert (told["lines"], told["is_all"]) == ([], True)
    assert (await desk.admin.get("/ops/v1/ledger?hours=9999")).status_code == 422


# -- budgets ----------------------------------------------------------------------------------------------------------


def a_rule(budget: str, *, limit: int = 100, **rest: Any) -> Rule:
    known = {"policy": "thrifty", "per": "day", "by": "policy", "when_spent": "refuse", "unknown_nanos": None}
    return Rule(budget=budget, limit_nanos=limit, **(known | rest))


async def test_budgets_are_shown_with_what_is_spent_set_aside_and_left(desk: Desk) -> None:
    whole, keys, gone = a_rule("eu"), a_rule("keys", by="key", per="hour"), a_rule("gone", per="month")
    now = desk.routes.clock.now()
    for number, (rule, key, nanos) in enumerate(
        [(whole, "", 30), (whole, "", 20), (keys, "alice", 7), (keys, "bob", 99), (gone, "", 1)]
    ):
        hold = hold_of(rule, key=key, labels={}, now=now)
        assert await desk.store.reserve(Reservation(id=f"p/{number}", nanos=nanos, holds=(hold,))) is None
    await desk.store.settle("p/1", 25, revision=1)
    desk.rules = (
        whole,
        a_rule("new", when_spent="local", unknown_nanos=3),
        a_rule("keys", by="key", per="hour", limit=90),
    )
    shown = await desk.get("budgets")
    assert shown["is_all"] is True
    assert [(rule["budget"], rule["when_spent"], rule["unknown_nanos"]) for rule in shown["rules"]] == [
        ("eu", "refuse", None),
        ("new", "local", 3),
        ("keys", "refuse", None),
    ]
    lines = [
        (
            line["budget"],
            line["of"],
            line["limit_nanos"],
            line["spent_nanos"],
            line["reserved_nanos"],
            line["left_nanos"],
        )
        for line in shown["lines"]
    ]
    assert lines == [
        ("keys", "alice", 90, 0, 7, 83),
        ("keys", "bob", 90, 0, 99, 0),
        ("eu", "", 100, 25, 30, 45),
        ("new", "", 100, 0, 0, 100),
        ("gone", "", 100, 0, 1, 99),
    ]
    assert shown["lines"][2]["ends_at"] == "2026-03-05T00:00:00Z"
    assert shown["lines"][2]["window"] == "2026-03-04"
    assert (await desk.get("budgets", limit="2"))["is_all"] is False
    assert (await desk.admin.get("/ops/v1/budgets?limit=0")).status_code == 422


async def test_windows_that_have_ended_are_not_shown(desk: Desk) -> None:
    hold = hold_of(a_rule("eu", per="hour"), key="", labels={}, now=desk.routes.clock.now())
    assert await desk.store.reserve(Reservation(id="p/1", nanos=1, holds=(hold,))) is None
    desk.routes.clock.advance(3_600)
    assert (await desk.get("budgets"))["lines"] == []
