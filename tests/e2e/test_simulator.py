"""The simulator over real sockets: as Replicate's own client sees it, as a hostile upstream, and as ops change it."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import io
import json
import re
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import httpx
import pytest
import replicate
from PIL import Image
from replicate.exceptions import ModelError, ReplicateError
from standardwebhooks.webhooks import Webhook, WebhookVerificationError

from gateway.contract.errors import ConfigurationError, OutcomeUnknown, RateLimited
from gateway.contract.fact import Phase
from gateway.simulator import Behaviour, Simulator
from providers._driver import HttpDriver
from providers.replicate import Replicate
from tests.unit.providers.echo_adapter import a_call

QUICK = Behaviour(queue=0.001, median=0.01, sigma=0.0)


@pytest.fixture
async def http() -> AsyncIterator[httpx.AsyncClient]:
    async with httpx.AsyncClient(trust_env=False, timeout=10) as client:
        yield client


def quick(**changes: Any) -> Behaviour:
    return QUICK.changed(changes)


def picture(width: int = 7, height: int = 5) -> tuple[Image.Image, str]:
    image = Image.new("RGB", (width, height))
    image.putdata([(x * 30, y * 40, (x * y) % 256) for y in range(height) for x in range(width)])
    file = io.BytesIO()
    image.save(file, "PNG")
    return image, "data:image/png;base64," + base64.b64encode(file.getvalue()).decode()


async def create(http: httpx.AsyncClient, url: str, *, wait: int = 10, **body: Any) -> httpx.Response:
    headers = {"prefer": f"wait={wait}"} if wait else {}
    return await http.post(f"{url}/models/acme/echo/predictions", json={"input": {}, **body}, headers=headers)


async def ended(http: httpx.AsyncClient, url: str, id: str) -> dict[str, Any]:
    async with asyncio.timeout(10):
        while True:
            prediction = (await http.get(f"{url}/predictions/{id}")).json()
            if prediction["status"] not in ("starting", "processing"):
                return prediction
            await asyncio.sleep(0.02)  # as every caller of this API has to


async def until(is_so: Callable[[], bool]) -> None:
    async with asyncio.timeout(5):
        while not is_so():  # noqa: ASYNC110 - the books tell nobody when a line is added
            await asyncio.sleep(0.005)


# -- the official client ---------------------------------------------------------------------------------------------


async def with_client(simulator: Simulator, use: Callable[[replicate.Client], Any], name: str = "one") -> Any:
    client = replicate.Client(api_token="r8_x", base_url=simulator.url(name).removesuffix("/v1"))
    client.poll_interval = 0.02
    try:
        return await asyncio.to_thread(use, client)
    finally:
        client._client.close()  # it has no way to be closed of its own


async def test_the_official_client_creates_polls_and_lists() -> None:
    async with Simulator({"one": quick(median=0.1)}) as simulator:

        def use(client: replicate.Client) -> Any:
            prediction = client.predictions.create(version="a" * 64, input={"x": 1})
            first = prediction.status, prediction.output
            prediction.wait()
            return first, prediction, client.predictions.list().results

        first, prediction, listed = await with_client(simulator, use)
    assert first == ("starting", None)
    assert (prediction.status, prediction.output, prediction.version) == ("succeeded", {"x": 1}, "a" * 64)
    assert prediction.metrics["predict_time"] >= 0.1
    assert [one.id for one in listed] == [prediction.id]


async def test_the_official_client_runs_and_a_wait_that_is_too_short_goes_on_polling() -> None:
    async with Simulator({"one": quick(median=1.5)}) as simulator:
        # The words are there one by one while it waits: none of them may be taken for the end, and none be lost.
        words = await with_client(
            simulator, lambda client: client.run("acme/talker", input={"prompt": "a b c d"}, wait=1)
        )
    assert "".join(words).split() == ["a", "b", "c", "d"]


async def test_the_official_client_gets_a_really_enlarged_picture() -> None:
    image, uri = picture()
    async with Simulator({"one": QUICK}) as simulator:
        url = await with_client(simulator, lambda client: client.run("acme/upscale", input={"image": uri, "scale": 3}))
        async with httpx.AsyncClient(trust_env=False) as http:
            answer = await http.get(str(url))
            enlarged = Image.open(io.BytesIO(answer.content))
    assert answer.headers["content-type"] == "image/png"
    assert enlarged.size == (21, 15)
    near = image.resize((21, 15), Image.Resampling.BICUBIC)
    assert max(abs(a - b) for a, b in zip(near.tobytes(), enlarged.tobytes(), strict=True)) <= 2


async def test_the_official_client_cancels() -> None:
    async with Simulator({"one": quick(hang=1.0)}) as simulator:

        def use(client: replicate.Client) -> Any:
            prediction = client.predictions.create(version="a" * 64, input={})
            prediction.cancel()
            prediction.reload()
            return prediction

        assert (await with_client(simulator, use)).status == "canceled"


async def test_the_official_client_streams_words_as_they_come() -> None:
    async with Simulator({"one": quick(median=0.2)}) as simulator:
        events = await with_client(
            simulator, lambda client: list(client.stream("acme/talker", input={"prompt": "one two\nthree"}))
        )
    assert [event.event.value for event in events] == ["output", "output", "output", "done"]
    assert "".join(event.data for event in events[:-1]).split() == ["one", "two", "three"]
    assert len({event.id for event in events}) == 4


async def test_the_official_client_raises_its_own_errors() -> None:
    async with Simulator({"failing": quick(error=1.0), "refusing": quick(refuse=1.0)}) as simulator:
        with pytest.raises(ModelError, match="out of memory"):
            await with_client(simulator, lambda client: client.run("acme/echo", input={}), "failing")
        with pytest.raises(ReplicateError) as caught:
            await with_client(simulator, lambda client: client.run("acme/echo", input={}), "refusing")
    assert caught.value.status == 500


# -- webhooks --------------------------------------------------------------------------------------------------------


class Receiver:
    """Answers each webhook with the next of `statuses`, then 200; keeps what came."""

    def __init__(self, *statuses: int) -> None:
        self.statuses = list(statuses)
        self.received: list[tuple[dict[str, str], bytes]] = []
        self.arrived = asyncio.Semaphore(0)
        self.url = ""

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while True:
                lines = (await reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")[1:-2]
                headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
                self.received.append((headers, await reader.readexactly(int(headers["content-length"]))))
                status = self.statuses.pop(0) if self.statuses else 200
                writer.write(b"HTTP/1.1 %d x\r\ncontent-length: 0\r\n\r\n" % status)
                self.arrived.release()
        except (asyncio.IncompleteReadError, ConnectionError):
            writer.close()


@asynccontextmanager
async def receiver(*statuses: int) -> AsyncIterator[Receiver]:
    one = Receiver(*statuses)
    server = await asyncio.start_server(one.serve, "127.0.0.1", 0)
    one.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/hook?x=1"
    yield one
    server.close()


async def test_webhooks_are_signed_as_the_standards_own_library_checks(http: httpx.AsyncClient) -> None:
    async with receiver() as hook, Simulator({"one": QUICK}) as simulator:
        secret = (await http.get(f"{simulator.url('one')}/webhooks/default/secret")).json()["key"]
        body = {"webhook": hook.url, "webhook_events_filter": ["start", "completed"], "input": {"t": "höhö"}}
        prediction = (await create(http, simulator.url("one"), **body)).json()
        for _ in range(2):
            await hook.arrived.acquire()
    bodies = [Webhook(secret).verify(content, headers) for headers, content in hook.received]
    assert sorted(body["status"] for body in bodies) == ["processing", "succeeded"]
    assert {body["id"] for body in bodies} == {prediction["id"]}
    assert len({headers["webhook-id"] for headers, _ in hook.received}) == 2
    replicate.webhook.Webhooks.validate(
        headers=hook.received[0][0],
        body=hook.received[0][1].decode(),
        secret=replicate.webhook.WebhookSigningSecret(key=secret),
    )


async def test_the_end_is_told_again_under_the_same_id_until_it_is_taken(http: httpx.AsyncClient) -> None:
    async with receiver(500, 503) as hook, Simulator({"one": QUICK}) as simulator:
        await create(http, simulator.url("one"), webhook=hook.url)
        for _ in range(3):
            await hook.arrived.acquire()
    assert len({headers["webhook-id"] for headers, _ in hook.received}) == 1
    assert len({content for _, content in hook.received}) == 1


async def test_lost_webhooks_are_not_sent_and_the_job_is_there_to_be_polled(http: httpx.AsyncClient) -> None:
    async with receiver() as hook, Simulator({"one": quick(lost_webhook=1.0), "two": QUICK}) as simulator:
        lost = (await create(http, simulator.url("one"), webhook=hook.url)).json()
        told = (await create(http, simulator.url("two"), webhook=hook.url)).json()
        await hook.arrived.acquire()
    assert lost["status"] == "succeeded"
    assert [json.loads(content)["id"] for _, content in hook.received] == [told["id"]]


async def test_callbacks_come_more_than_once_and_late_where_it_is_asked_for(http: httpx.AsyncClient) -> None:
    async with (
        receiver() as hook,
        Simulator({"one": quick(duplicate=1.0, late=1.0, late_seconds=0.2)}) as simulator,
    ):
        prediction = (await create(http, simulator.url("one"), webhook=hook.url)).json()
        assert (prediction["status"], hook.received) == ("succeeded", [])
        for _ in range(2):
            await hook.arrived.acquire()
    assert {(headers["webhook-id"], content) for headers, content in hook.received} == {
        (hook.received[0][0]["webhook-id"], hook.received[0][1])
    }


async def test_a_forger_is_quicker_and_cannot_sign(http: httpx.AsyncClient) -> None:
    async with receiver() as hook, Simulator({"one": quick(forged=1.0)}) as simulator:
        await create(http, simulator.url("one"), webhook=hook.url)
        for _ in range(2):
            await hook.arrived.acquire()
        secret = simulator.secret
    told = {}
    for headers, content in hook.received:
        try:
            Webhook(secret).verify(content, headers)
        except WebhookVerificationError:
            told["forged"] = json.loads(content)["status"]
        else:
            told["true"] = json.loads(content)["status"]
    assert told == {"forged": "failed", "true": "succeeded"}


# -- faults ----------------------------------------------------------------------------------------------------------


@asynccontextmanager
async def driving(simulator: Simulator, **options: Any) -> AsyncIterator[HttpDriver]:
    driver = HttpDriver("one", Replicate(), base_url=simulator.url("one"), **options)
    yield driver
    await driver.aclose()


async def test_our_own_driver_runs_a_job_to_its_end() -> None:
    async with Simulator({"one": QUICK}) as simulator, driving(simulator) as driver:
        fact = await driver.submit(a_call())
        assert fact.handle is not None
        while not fact.phase.is_end:
            fact = await driver.poll(fact.handle or {})
        assert (fact.phase, fact.output) == (Phase.SUCCEEDED, ["hi "])


async def test_a_connection_cut_after_the_start_is_unknown_and_in_the_books() -> None:
    async with Simulator({"one": quick(cut=1.0)}) as simulator, driving(simulator) as driver:
        with pytest.raises(OutcomeUnknown, match="ReadError"):
            await driver.submit(a_call())
        (job,) = simulator.books("one")
        assert job["submit"] == "cut"


async def test_a_connection_cut_before_the_start_is_unknown_too_and_not_in_the_books() -> None:
    async with Simulator({"one": quick(cut_before=1.0)}) as simulator, driving(simulator) as driver:
        with pytest.raises(OutcomeUnknown, match="ReadError"):
            await driver.submit(a_call())
        assert simulator.books("one") == []


async def test_garbage_is_unknown_and_its_job_runs() -> None:
    async with Simulator({"one": quick(garbage=1.0)}) as simulator, driving(simulator) as driver:
        with pytest.raises(OutcomeUnknown):
            await driver.submit(a_call())
        assert len(simulator.books("one")) == 1


async def test_an_answer_that_breaks_off_is_unknown_and_its_job_runs() -> None:
    async with Simulator({"one": quick(truncate=1.0)}) as simulator, driving(simulator) as driver:
        with pytest.raises(OutcomeUnknown):
            await driver.submit(a_call())
        assert len(simulator.books("one")) == 1


async def test_a_slow_answer_comes_after_the_jobs_callback(http: httpx.AsyncClient) -> None:
    async with (
        receiver() as hook,
        Simulator({"one": quick(slow=1.0, slow_seconds=0.2)}) as simulator,
        asyncio.TaskGroup() as group,
    ):
        answer = group.create_task(create(http, simulator.url("one"), wait=0, webhook=hook.url))
        await hook.arrived.acquire()
        assert not answer.done()
    assert answer.result().json()["id"] == json.loads(hook.received[0][1])["id"]


async def test_a_stumble_answers_a_poll_and_touches_no_job(http: httpx.AsyncClient) -> None:
    async with Simulator({"one": quick(stumble=0.5, seed=1)}) as simulator:
        id = (await create(http, simulator.url("one"))).json()["id"]
        answers = [await http.get(f"{simulator.url('one')}/predictions/{id}") for _ in range(20)]
    assert {answer.status_code for answer in answers} == {200, 500}
    assert {answer.json()["status"] for answer in answers} == {"succeeded", 500}


async def test_a_listing_goes_on_by_its_cursor_to_the_first_job(http: httpx.AsyncClient) -> None:
    async with Simulator({"one": QUICK}) as simulator:
        made = [(await create(http, simulator.url("one"), wait=0)).json()["id"] for _ in range(205)]
        listed: list[str] = []
        page = f"{simulator.url('one')}/predictions"
        while page:
            shown = (await http.get(page)).json()
            listed += [one["id"] for one in shown["results"]]
            page = shown["next"]
    assert listed == made[::-1]


async def test_throttling_names_a_time_and_starts_nothing() -> None:
    async with Simulator({"one": quick(throttle=1.0, retry_after=7)}) as simulator, driving(simulator) as driver:
        with pytest.raises(RateLimited) as caught:
            await driver.submit(a_call())
        assert caught.value.retry_after_seconds == 7
        assert simulator.books("one") == []


async def test_a_cut_is_a_reset_and_leaves_the_other_connections_alone() -> None:
    async with Simulator({"one": quick(cut_before=1.0)}) as simulator:
        host, _, port = simulator.url("one")[7:-3].partition(":")
        bystander = await asyncio.open_connection(host, int(port))
        reader, writer = await asyncio.open_connection(host, int(port))
        writer.write(
            b'POST /v1/predictions HTTP/1.1\r\nhost: x\r\ncontent-length: 27\r\n\r\n{"version":"a","input":{} }'
        )
        with pytest.raises(ConnectionResetError):
            await reader.read()
        bystander[1].write(b"GET /v1/predictions HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n")
        assert (await bystander[0].read()).startswith(b"HTTP/1.1 200")
        writer.close()
        bystander[1].close()


async def test_a_hanging_job_never_ends_and_never_says_so(http: httpx.AsyncClient) -> None:
    async with Simulator({"one": quick(hang=1.0)}) as simulator:
        # The wait runs out while it runs: Replicate's clients take anything but `starting` for the end.
        answer = await create(http, simulator.url("one"), wait=1)
        assert (answer.json()["status"], answer.json()["output"]) == ("starting", None)
        seen = (await http.get(f"{simulator.url('one')}/predictions/{answer.json()['id']}")).json()
    assert seen["status"] == "processing"


@pytest.mark.parametrize(
    "image",
    [
        "data:image/png;base64,%%%",
        "data:image/png;base64," + base64.b64encode(b"\x89PNG\r\n\x1a\nnope").decode(),
        "data:image/png;base64," + base64.b64encode(base64.b64decode(picture()[1][22:])[:60]).decode(),
        "http://example.com/a.png",
        "http://169.254.169.254/latest",
        "http://127.0.0.1:1/a.png",
        "http://[::1",
        "file:///etc/passwd",
        "",
    ],
)
async def test_a_picture_that_cannot_be_had_or_read_fails_its_job(http: httpx.AsyncClient, image: str) -> None:
    async with Simulator({"one": QUICK}) as simulator:
        prediction = (await create(http, simulator.url("one"), input={"image": image})).json()
        assert prediction["status"] == "failed"
        assert "cannot be used" in prediction["error"]
        assert (await create(http, simulator.url("one"))).json()["status"] == "succeeded"


@pytest.mark.parametrize(
    ("content", "status"),
    [
        (b"", 400),
        (b"{", 400),
        (b"\xff", 400),
        (b"[" * 100_000, 400),
        (b"[]", 422),
        (b"{}", 422),
        (b'{"input": 3}', 422),
        (b'{"input": {}, "model": "x"}', 422),
        (b'{"input": {}, "webhook": 3}', 422),
        (b'{"input": {}, "webhook_events_filter": ["nonsense"]}', 422),
        (b'{"input": {}, "webhook_events_filter": [{}]}', 422),
    ],
)
async def test_a_body_that_is_no_create_is_refused_and_starts_nothing(
    http: httpx.AsyncClient, content: bytes, status: int
) -> None:
    async with Simulator({"one": QUICK}) as simulator:
        answer = await http.post(f"{simulator.url('one')}/predictions", content=content)
        assert (answer.status_code, answer.json()["status"]) == (status, status)
        assert simulator.books("one") == []


# -- the same seed ---------------------------------------------------------------------------------------------------

MIXED = {"error": 0.3, "refuse": 0.1, "throttle": 0.1, "cut": 0.1, "cut_before": 0.1, "garbage": 0.1, "sigma": 0.5}


async def play(http: httpx.AsyncClient, behaviour: Behaviour, creates: int = 40) -> list[Any]:
    """What forty creates, one after the other, meet; and what is in the books then."""
    met: list[Any] = []
    async with Simulator({"one": behaviour}) as simulator:
        for number in range(creates):
            try:
                answer = await create(http, simulator.url("one"), input={"n": number})
                met.append(answer.status_code)
            except httpx.ReadError:
                met.append("reset")
        for job in simulator.books("one"):
            prediction = await ended(http, simulator.url("one"), job["id"])
            met.append((job["submit"], job["end"], prediction["status"], job["input_sha256"]))
    return met


async def test_the_same_seed_is_the_same_luck_and_another_seed_another(http: httpx.AsyncClient) -> None:
    first = await play(http, quick(seed=7, **MIXED))
    assert len({str(one) for one in first[:40]}) == 4  # 201, 429, 500 and resets: there was something to repeat
    assert await play(http, quick(seed=7, **MIXED)) == first
    assert await play(http, quick(seed=8, **MIXED)) != first


async def test_one_raised_rate_changes_nobody_elses_luck(http: httpx.AsyncClient) -> None:
    before = await play(http, quick(seed=3, error=0.3))
    after = await play(http, quick(seed=3, error=0.3, refuse=0.3, lost_webhook=0.9))
    accepted = [number for number, status in enumerate(after[:40]) if status == 201]
    assert 0 < len(accepted) < 40
    assert after[40:] == [before[40 + number] for number in accepted]


# -- the books -------------------------------------------------------------------------------------------------------


async def test_the_books_name_every_job_its_key_its_input_and_its_price(http: httpx.AsyncClient) -> None:
    async with Simulator({"one": quick(price="0.0004", per_second="1", median=0.1)}) as simulator:
        answer = await http.post(
            f"{simulator.url('one')}/predictions",
            json={"version": "a" * 64, "input": {"b": 1, "a": 2}},
            headers={"idempotency-key": "attempt-1", "prefer": "wait"},
        )
        (job,) = (await http.get(f"{simulator.control_url}/one/books")).json()
    assert job["id"] == answer.json()["id"]
    assert job["idempotency_key"] == "attempt-1"
    assert job["status"] == "succeeded"
    assert job["input_sha256"] == hashlib.sha256(b'{"a":2,"b":1}').hexdigest()
    assert 100_400_000 <= job["billed_nanos"] <= 1_000_000_000
    assert job["created_at"] <= job["started_at"] <= job["completed_at"]


async def test_what_was_cancelled_before_it_ran_is_not_billed(http: httpx.AsyncClient) -> None:
    async with Simulator({"one": quick(queue=60, price="1")}) as simulator:
        prediction = (await create(http, simulator.url("one"), wait=0)).json()
        await http.post(prediction["urls"]["cancel"])
        (job,) = simulator.books("one")
    assert (job["status"], job["billed_nanos"]) == ("canceled", 0)


async def test_long_inputs_are_not_sent_back_with_every_poll(http: httpx.AsyncClient) -> None:
    async with Simulator({"one": QUICK}) as simulator:
        answer = await create(http, simulator.url("one"), input={"blob": "x" * 1_000_000, "n": 1})
    assert answer.json()["input"] == {"n": 1}


# -- changing it -----------------------------------------------------------------------------------------------------


async def test_it_is_changed_while_it_runs_and_a_wrong_change_is_refused_whole(http: httpx.AsyncClient) -> None:
    async with Simulator({"one": QUICK}) as simulator:
        place = f"{simulator.control_url}/one"
        assert (await http.patch(place, json={"refuse": 1.0})).json()["behaviour"]["refuse"] == 1.0
        assert (await create(http, simulator.url("one"))).status_code == 500
        for wrong in ({"refuse": 0.0, "error": 2}, {"refuse": 0.0, "eror": 1}, {"refuse": 0.0, "price": "x"}, [1]):
            assert (await http.patch(place, json=wrong)).status_code == 422
        assert (await http.get(place)).json()["behaviour"]["refuse"] == 1.0
        assert (await http.get(f"{simulator.control_url}/two")).status_code == 404


async def test_capacity_lets_so_many_run_and_can_be_raised_under_load(http: httpx.AsyncClient) -> None:
    async with Simulator({"one": quick(hang=1.0, capacity=2)}) as simulator:
        for _ in range(6):
            await create(http, simulator.url("one"), wait=0)

        async def running(count: int) -> None:
            await until(lambda: [bool(job["started_at"]) for job in simulator.books("one")].count(True) == count)

        await running(2)
        await asyncio.sleep(0.1)  # for a third that must not come
        await running(2)
        await http.patch(f"{simulator.control_url}/one", json={"capacity": 5})
        await running(5)


async def test_the_first_job_after_a_start_is_slow(http: httpx.AsyncClient) -> None:
    async with Simulator({"one": quick(slow_start=0.5)}) as simulator:
        totals = [(await create(http, simulator.url("one"))).json()["metrics"]["total_time"] for _ in range(2)]
        await simulator.down("one")
        await simulator.up("one")
        totals.append((await create(http, simulator.url("one"))).json()["metrics"]["total_time"])
    assert [total >= 0.5 for total in totals] == [True, False, True]


async def test_down_is_a_dead_machine_and_up_is_the_same_address(http: httpx.AsyncClient) -> None:
    async with receiver() as hook, Simulator({"one": quick(median=0.3), "two": QUICK}) as simulator:
        url = simulator.url("one")
        waiting = asyncio.ensure_future(create(http, url, webhook=hook.url))
        await until(lambda: len(simulator.books("one")) == 1)
        assert (await http.post(f"{simulator.control_url}/one/down")).json()["up"] is False
        with pytest.raises(httpx.ReadError):  # whoever waited is cut off
            await waiting
        for _ in range(3):
            with pytest.raises(httpx.ConnectError):
                await create(http, url)
        assert (await create(http, simulator.url("two"))).status_code == 201
        assert (await http.post(f"{simulator.control_url}/one/down")).status_code == 200  # twice is once
        assert (await http.post(f"{simulator.control_url}/one/up")).json()["up"] is True
        (job,) = simulator.books("one")
        lost = await ended(http, url, job["id"])
        assert (lost["status"], job["billed_nanos"]) == ("failed", 0)
        assert "interrupted" in lost["error"]
        assert (await create(http, url, webhook=hook.url)).json()["status"] == "succeeded"
        await hook.arrived.acquire()
        assert [json.loads(content)["id"] != lost["id"] for _, content in hook.received] == [True]


async def test_while_it_is_down_nobody_else_gets_its_port() -> None:
    async with Simulator({"one": QUICK}) as simulator:
        await simulator.down("one")
        port = int(simulator.url("one")[:-3].rpartition(":")[2])
        with pytest.raises(OSError, match="in use"):
            await asyncio.start_server(lambda reader, writer: None, "127.0.0.1", port, reuse_address=False)
        await simulator.up("one")


async def test_a_taken_port_is_one_line_and_leaves_nothing_open() -> None:
    async with Simulator({"one": QUICK}) as simulator:
        port = int(simulator.url("one")[:-3].rpartition(":")[2])
        with pytest.raises(ConfigurationError, match=rf"cannot listen on 127\.0\.0\.1:{port} .*--port"):
            await Simulator({"two": QUICK}, port=port).start()


async def test_closing_it_under_load_leaves_no_task_behind(http: httpx.AsyncClient) -> None:
    before = asyncio.all_tasks()
    async with Simulator({"one": quick(hang=1.0)}) as simulator:
        creates = [asyncio.ensure_future(create(http, simulator.url("one"), wait=30)) for _ in range(10)]
        await until(lambda: len(simulator.books("one")) == 10)
        stream = await http.send(
            http.build_request("GET", f"{simulator.url('one')}/stream/{simulator.books('one')[0]['id']}"), stream=True
        )
    assert {type(result) for result in await asyncio.gather(*creates, return_exceptions=True)} == {httpx.ReadError}
    await stream.aclose()
    assert asyncio.all_tasks() - before == set()


# -- the command -----------------------------------------------------------------------------------------------------


def test_the_command_serves_what_it_was_told_and_ends_when_told() -> None:
    arguments = ["--port", "0", "--provider", "cheap,price=0.0004,median=0.01,queue=0", "--provider", "fast,error=1"]
    process = subprocess.Popen(
        [sys.executable, "-m", "gateway", "simulator", *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        assert process.stdout is not None
        lines = [process.stdout.readline() for _ in range(5)]
        cheap, fast = (
            re.search(rf"^{name} +(http://\S+/v1)\b", line)
            for name, line in zip(("cheap", "fast"), lines[:2], strict=True)
        )
        assert cheap is not None
        assert fast is not None
        assert "/control" in lines[2]
        answer = httpx.post(f"{cheap[1]}/predictions", json={"version": "a", "input": {}}, headers={"prefer": "wait"})
        assert answer.json()["status"] == "succeeded"
        process.send_signal(signal.SIGTERM)
        assert process.wait(10) == 0
        assert process.communicate()[1] == ""
    finally:
        process.kill()
        process.communicate()


@pytest.mark.parametrize(
    ("argument", "says"),
    [
        ("=3", "begin with a name"),
        ("cheap,eror=1", "eror"),
        ("cheap,error", "KEY=VALUE"),
        ("cheap,error=2", "<= 1"),
        ("cheap,price=much", "much"),
    ],
)
def test_wrong_arguments_are_one_line_and_exit_code_two(argument: str, says: str) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "gateway", "simulator", "--port", "0", "--provider", argument],
        capture_output=True,
        text=True,
        timeout=15,
    )
    assert done.returncode == 2
    assert len(done.stderr.splitlines()) == 1
    assert says in done.stderr
    assert argument in done.stderr
