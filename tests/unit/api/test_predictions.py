"""Creating, waiting, reading, listing and cancelling predictions, as the official clients need it."""

from __future__ import annotations

from datetime import timedelta

import pytest

from gateway.contract.errors import StoreError, StoreOverloaded, StoreUnavailable
from gateway.contract.prediction import Status, WebhookEvent
from tests.unit.api.fakes import ADMIN, ALICE, BEGIN, FILES_VERSION, OLD_VERSION, PUBLIC, VERSION, World, replace

ALWAYS = {"id", "model", "version", "input", "output", "data_removed", "error", "status", "created_at", "urls", "logs"}


async def test_a_create_without_prefer_answers_as_it_began_however_far_it_has_come(world: World) -> None:
    reply = await world.post()
    assert reply.status_code == 201
    body = reply.json()
    assert body["status"] == "starting"
    assert body["output"] is None
    assert body["logs"] == ""
    assert "preference-applied" not in reply.headers
    assert world.engine.waited == []
    assert reply.headers["location"] == body["urls"]["get"]


async def test_even_a_finished_prediction_is_created_as_starting_without_prefer(world: World) -> None:
    first = await world.post(idempotency_key="k1")
    world.engine.end(first.json()["id"], status=Status.SUCCEEDED, output=["a", "b"], logs="x", metrics={"t": 1})
    again = await world.post(idempotency_key="k1")
    body = again.json()
    assert body["id"] == first.json()["id"]
    assert (body["status"], body["output"], body["logs"], body["error"]) == ("starting", None, "", None)
    assert not {"completed_at", "started_at", "metrics", "routing"} & set(body)


async def test_waiting_answers_the_end_if_it_came_in_time(world: World) -> None:
    reply = await world.post(prefer="wait=10")
    assert reply.status_code == 201
    assert reply.json()["status"] == "succeeded"
    assert reply.json()["output"] == "out"
    assert reply.headers["preference-applied"] == "wait=10"
    assert world.engine.waited == [10.0]


async def test_waiting_in_vain_answers_starting_with_null_output_though_it_is_processing(world: World) -> None:
    world.engine.ending = {"status": Status.PROCESSING, "output": ["a"], "logs": "half"}
    body = (await world.post(prefer="wait")).json()
    assert (body["status"], body["output"], body["logs"]) == ("starting", None, "")


@pytest.mark.parametrize(
    ("prefer", "held", "applied"),
    [
        ("wait", 58.0, "wait"),
        ("wait=120", 58.0, "wait=58"),
        ("respond-async, wait=5", 5.0, "wait=5"),
        ("Wait=3", 3.0, "wait=3"),
    ],
)
async def test_a_wait_is_clamped_not_refused(world: World, prefer: str, held: float, applied: str) -> None:
    reply = await world.post(prefer=prefer)
    assert world.engine.waited == [held]
    assert reply.headers["preference-applied"] == applied


@pytest.mark.parametrize("prefer", ["wait=0", "wait=x", "wait=-1", "respond-async", "wait=1.5", "wait=" + "9" * 50])
async def test_a_preference_that_means_nothing_is_ignored(world: World, prefer: str) -> None:
    reply = await world.post(prefer=prefer)
    assert reply.status_code == 201
    assert world.engine.waited == []


async def test_a_wait_that_fails_after_acceptance_still_tells_the_id(world: World) -> None:
    world.engine.wait_failure = StoreUnavailable("gone")
    reply = await world.post(prefer="wait")
    assert reply.status_code == 201
    assert reply.json()["status"] == "starting"
    assert reply.json()["id"] == world.only.id


@pytest.mark.parametrize(
    ("error", "is_certain"), [(StoreOverloaded("full"), True), (StoreUnavailable("no answer from 10.0.0.9"), False)]
)
async def test_nothing_changed_is_only_said_where_it_is_certain(
    world: World, error: StoreError, is_certain: bool
) -> None:
    """A store that did not answer may have committed: only a key makes the repeat the same prediction."""
    world.engine.failures = [error]
    reply = await world.post()
    assert (reply.status_code, reply.headers["retry-after"]) == (503, "1")
    said = reply.json()["detail"]
    assert ("nothing was changed" in said, "same Idempotency-Key" in said) == (is_certain, not is_certain)
    assert str(error) not in said


@pytest.mark.parametrize(
    ("text", "version", "pinned"),
    [
        ("acme/writer", VERSION, False),
        (f"acme/writer:{OLD_VERSION}", OLD_VERSION, True),
        (OLD_VERSION, OLD_VERSION, True),
        (VERSION, VERSION, True),
    ],
)
async def test_all_three_forms_of_a_version_are_read(world: World, text: str, version: str, pinned: bool) -> None:
    reply = await world.post({"version": text, "input": {"prompt": "x"}})
    assert reply.status_code == 201
    assert world.only.request.version == reply.json()["version"] == version
    assert world.only.request.is_pinned is pinned
    assert reply.json()["model"] == "acme/writer"


@pytest.mark.parametrize(
    "text",
    [
        "",
        "x",
        "acme/none",
        f"acme/writer:{FILES_VERSION}",
        f"acme/painter:{VERSION}",
        "acme/writer:",
        "f" * 64,
        "/",
        ":",
    ],
)
async def test_a_version_that_is_not_there_is_a_422(world: World, text: str) -> None:
    reply = await world.post({"version": text, "input": {"prompt": "x"}})
    assert reply.status_code == 422
    assert reply.json() == {
        "title": "Invalid version or not permitted",
        "detail": "The specified version does not exist (or perhaps you don't have permission to use it?)",
        "status": 422,
    }
    assert world.store.predictions == {}


async def test_a_model_is_run_by_its_path_with_its_default_version(world: World) -> None:
    reply = await world.post({"input": {"prompt": "x"}}, path="/v1/models/acme/writer/predictions")
    assert reply.status_code == 201
    assert (world.only.request.version, world.only.request.is_pinned) == (VERSION, False)
    missing = await world.post({"input": {}}, path="/v1/models/acme/none/predictions")
    assert missing.status_code == 404


async def test_defaults_are_filled_in_and_unknown_input_keys_dropped(world: World) -> None:
    await world.post({"version": VERSION, "input": {"prompt": "x", "colour": "red"}})
    assert world.only.request.input == {"prompt": "x", "steps": 20, "scale": 7.5, "output_format": "jpg"}


async def test_a_schema_without_properties_takes_anything(world: World) -> None:
    await world.post({"version": FILES_VERSION, "input": {"whatever": [1, {"a": None}]}})
    assert world.only.request.input == {"whatever": [1, {"a": None}]}


async def test_a_secret_reaches_the_provider_and_is_never_shown(world: World) -> None:
    reply = await world.post({"version": VERSION, "input": {"prompt": "x", "api_key": "hunter2"}})
    assert world.only.request.input["api_key"] == "hunter2"
    for shown in (
        reply,
        await world.alice.get(f"/v1/predictions/{world.only.id}"),
        await world.alice.get("/v1/predictions"),
    ):
        assert "hunter2" not in shown.text
        assert "[REDACTED]" in shown.text


async def test_the_callers_own_token_is_redacted_wherever_it_stands_in_the_input(world: World) -> None:
    client = {"auth": ALICE.text, "list": [f"Bearer {ALICE.text}"], "deep": {"a": {ALICE.text: ALICE.text}}}
    reply = await world.post({"version": FILES_VERSION, "input": client}, prefer="wait")
    assert ALICE.text not in repr(world.only)
    assert ALICE.text not in reply.text
    assert world.only.request.input["list"] == ["Bearer [REDACTED]"]


async def test_webhooks_and_their_filter_are_kept_and_echoed(world: World) -> None:
    url = "https://hooks.example/x?a=1"
    body = {
        "version": VERSION,
        "input": {"prompt": "x"},
        "webhook": url,
        "webhook_events_filter": ["start", "completed", "start"],
    }
    reply = await world.post(body)
    assert world.only.request.webhook == url
    assert world.only.request.webhook_events == (WebhookEvent.START, WebhookEvent.COMPLETED)
    assert reply.json()["webhook"] == url
    assert reply.json()["webhook_events_filter"] == ["start", "completed"]


async def test_webhook_completed_is_a_webhook_only_where_there_is_no_other(world: World) -> None:
    await world.post({"version": VERSION, "input": {"prompt": "x"}, "webhook_completed": "https://a.example/"})
    assert world.only.request.webhook == "https://a.example/"
    assert world.only.request.webhook_events == (WebhookEvent.COMPLETED,)
    world.store.predictions.clear()
    both = {
        "version": VERSION,
        "input": {"prompt": "x"},
        "webhook": "https://b.example/",
        "webhook_completed": "https://a.example/",
    }
    await world.post(both)
    assert world.only.request.webhook == "https://b.example/"


@pytest.mark.parametrize(
    "url",
    [
        "",
        "x",
        "http://hooks.example/",
        "ftp://a.example/",
        "https://",
        "https:///x",
        "https://a.example/ b",
        "https://[::1",
        "https://a.example:99999/",
        "https://127.0.0.1/",
        "https://a.example/\n",
        "https://" + "a" * 3000,
    ],
)
async def test_a_webhook_that_may_not_be_called_is_a_422_on_its_field(world: World, url: str) -> None:
    reply = await world.post({"version": VERSION, "input": {"prompt": "x"}, "webhook": url})
    assert reply.status_code == 422
    assert reply.json()["invalid_fields"][0]["field"] == "webhook"
    assert world.store.predictions == {}


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("30", 30), ("30s", 30), ("5m", 300), ("2h", 7200), ("1h30m45s", 5445), ("24h", 86400), ("5", 5)],
)
async def test_cancel_after_is_read_in_all_its_forms(world: World, text: str, seconds: float) -> None:
    reply = await world.post(cancel_after=text)
    assert world.engine.cancel_afters == [seconds]
    assert world.only.request.wants_deadline
    expected = BEGIN + timedelta(seconds=seconds)
    assert reply.json()["deadline"] == expected.strftime("%Y-%m-%dT%H:%M:%S.678Z")


@pytest.mark.parametrize(
    "text", ["", "4", "4s", "24h1s", "1d", "-5", "5 m", "m", "1m1h", "١٠", "1e3", "999999999h", "5.5"]
)
async def test_a_wrong_cancel_after_is_a_422(world: World, text: str) -> None:
    reply = await world.alice.post(
        "/v1/predictions",
        json={"version": VERSION, "input": {"prompt": "x"}},
        headers=[(b"cancel-after", text.encode())],
    )
    assert reply.status_code == 422
    assert reply.json()["invalid_fields"][0]["field"] == "Cancel-After"
    assert world.store.predictions == {}


@pytest.mark.parametrize(("asked", "shown"), [(None, "canceled"), ("30", "aborted")])
async def test_aborted_is_only_shown_to_who_asked_for_a_deadline(world: World, asked: str | None, shown: str) -> None:
    await world.post(**({"cancel_after": asked} if asked else {}))
    world.engine.end(world.only.id, status=Status.ABORTED)
    reply = await world.alice.get(f"/v1/predictions/{world.only.id}")
    assert reply.json()["status"] == shown
    assert ("deadline" in reply.json()) is (asked is not None)


async def test_an_idempotency_key_gives_the_same_prediction_and_refuses_another_body(world: World) -> None:
    first = await world.post(idempotency_key="order-1")
    again = await world.post(idempotency_key="order-1")
    assert again.json()["id"] == first.json()["id"]
    assert again.headers["turnout-repeat"] == "true"
    other = await world.post({"version": VERSION, "input": {"prompt": "other"}}, idempotency_key="order-1")
    assert other.status_code == 422
    assert other.json()["title"] == "Idempotency key reused"
    elsewhere = {"input": {"prompt": "hi"}}
    await world.post(elsewhere, path="/v1/models/acme/writer/predictions", idempotency_key="order-2")
    moved = await world.post(elsewhere, path="/v1/models/acme/painter/predictions", idempotency_key="order-2")
    assert moved.status_code == 422


async def test_policy_and_labels_come_by_headers(world: World) -> None:
    await world.post(turnout_policy="fastest", turnout_labels="team=search, tier=gold")
    assert world.only.request.policy == "fastest"
    assert world.only.request.labels == {"team": "search", "tier": "gold"}
    world.store.predictions.clear()
    await world.post()
    assert world.only.request.policy == "cheapest"  # the key's own


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("turnout-policy", "unknown"),
        ("turnout-policy", "a b"),
        ("turnout-labels", "a"),
        ("turnout-labels", "=b"),
        ("turnout-labels", ",".join(f"k{n}=v" for n in range(17))),
        ("idempotency-key", "x" * 256),
        ("idempotency-key", ""),
    ],
)
async def test_headers_that_cannot_be_meant_are_a_422(world: World, name: str, value: str) -> None:
    reply = await world.alice.post(
        "/v1/predictions", json={"version": VERSION, "input": {"prompt": "x"}}, headers={name: value}
    )
    assert reply.status_code == 422
    assert reply.json()["invalid_fields"][0]["field"].lower() == name
    assert world.store.predictions == {}


async def test_get_shows_all_that_is_required_and_no_null_in_urls(world: World) -> None:
    await world.post()
    reply = await world.alice.get(f"/v1/predictions/{world.only.id}")
    body = reply.json()
    assert set(body) >= ALWAYS
    assert body["created_at"] == "2026-01-02T03:04:05.678Z"
    assert all(isinstance(url, str) and url.startswith(PUBLIC) for url in body["urls"].values())
    assert body["urls"]["stream"] == f"{PUBLIC}/stream/{world.only.stream_token}"
    assert "started_at" not in body
    assert "metrics" not in body


async def test_only_models_with_file_outputs_stream_under_the_files_path(world: World) -> None:
    reply = await world.post({"version": FILES_VERSION, "input": {}})
    assert world.only.request.file_output
    assert reply.json()["urls"]["stream"] == f"{PUBLIC}/v1/files/stream-{world.only.stream_token}"


async def test_cancel_answers_the_prediction_and_leaves_a_finished_one_unchanged(world: World) -> None:
    await world.post()
    path = f"/v1/predictions/{world.only.id}/cancel"
    # npm's client sends this content type with an empty body.
    reply = await world.alice.post(path, headers={"content-type": "application/json"})
    assert (reply.status_code, reply.json()["status"]) == (200, "canceled")
    world.store.predictions[world.only.id] = replace(world.only, status=Status.SUCCEEDED, output="kept")
    again = await world.alice.post(path)
    assert (again.status_code, again.json()["status"], again.json()["output"]) == (200, "succeeded", "kept")


async def test_lists_are_paged_by_absolute_urls_with_opaque_cursors(world: World) -> None:
    for _ in range(230):
        world.clock.advance(1)
        await world.engine.create(replace_request(world), owner="alice")
    page = (await world.alice.get("/v1/predictions", params={"created_after": "2026-01-01T00:00:00Z"})).json()
    seen = [one["id"] for one in page["results"]]
    assert len(seen) == 100
    assert page["previous"] is None
    while page["next"]:
        assert page["next"].startswith(f"{PUBLIC}/v1/predictions?")
        assert "created_after" in page["next"]
        page = (await world.alice.get(page["next"])).json()
        seen += [one["id"] for one in page["results"]]
    assert len(seen) == len(set(seen)) == 230
    assert page["previous"].startswith(PUBLIC)


def replace_request(world: World):  # type: ignore[no-untyped-def]
    from gateway.contract.prediction import Request

    return Request(model="acme/writer", version=VERSION, is_pinned=False, input={})


async def test_lists_are_narrowed_by_time_and_empty_for_the_web(world: World) -> None:
    await world.post()
    for query, count in [
        ({"created_after": "2026-01-02T03:04:05Z"}, 1),
        ({"created_after": "2026-01-02T03:04:06Z"}, 0),
        ({"created_before": "2026-01-02T05:04:05+02:00"}, 0),
        ({"created_before": "2026-01-03"}, 1),
        ({"source": "web"}, 0),
    ]:
        reply = await world.alice.get("/v1/predictions", params=query)
        assert len(reply.json()["results"]) == count, query
    for query in ({"created_after": "yesterday"}, {"source": "api"}, {"created_before": "0001-01-01T00:00:00+14:00"}):
        assert (await world.alice.get("/v1/predictions", params=query)).status_code == 422


@pytest.mark.parametrize("cursor", ["!", "x", "%00", "é", "A" * 5000, "eA=="])
async def test_a_cursor_we_did_not_make_is_a_404(world: World, cursor: str) -> None:
    reply = await world.alice.get("/v1/predictions", params={"cursor": cursor})
    assert reply.status_code == 404
    assert reply.json()["detail"] == "Invalid cursor"


async def test_an_admin_key_reads_a_foreign_prediction_but_does_not_cancel_it(world: World) -> None:
    await world.post()
    admin = world.client(ADMIN.text)
    assert (await admin.get(f"/v1/predictions/{world.only.id}")).status_code == 200
    assert (await admin.post(f"/v1/predictions/{world.only.id}/cancel")).status_code == 404


@pytest.mark.parametrize("error", [StoreUnavailable("x"), StoreOverloaded("x")])
async def test_a_store_that_takes_nothing_is_a_503_that_may_be_tried_again(world: World, error: Exception) -> None:
    world.engine.failures = [error]
    reply = await world.post()
    assert reply.status_code == 503
    assert reply.headers["retry-after"] == "1"
    assert "x-should-retry" not in reply.headers
    assert reply.headers["content-type"] == "application/problem+json"


async def test_a_full_or_draining_gateway_takes_no_new_predictions(world: World) -> None:
    world.engine.open_count = 100
    assert (await world.post()).status_code == 503
    world.engine.open_count = 0
    world.engine.is_draining = True
    assert (await world.post()).status_code == 503
    assert world.store.predictions == {}


async def test_an_unexpected_error_tells_an_id_and_nothing_else_and_is_not_to_be_repeated(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    world.engine.failures = [RuntimeError("secret detail")]
    reply = await world.post()
    assert reply.status_code == 500
    assert "secret detail" not in reply.text
    assert reply.headers["x-should-retry"] == "false"
    id = reply.json()["instance"].rpartition(":")[2]
    assert id in caplog.text
    assert "secret detail" in caplog.text
