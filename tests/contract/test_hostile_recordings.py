"""
Every adapter over its own recordings, spoiled: whatever comes back is a Fact, a question or a failure with a verdict.

Each answer a recording holds is fed again with fields lost, doubled and of the wrong type, cut, nested, blown up, as a
page, with another status and content type, with words for states that nobody knows, and with others' ids and addresses.
"""

from __future__ import annotations

import copy
import functools
import json
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from typing import Any, NamedTuple
from urllib.parse import unquote

import httpx
import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gateway.contract.errors import CallbackForged, Failure, PollFailed, ProviderFailure, Verdict
from gateway.contract.fact import Fact
from gateway.contract.provider import Adapter, Ask, Call, Callback, Cancellation, HttpResponse
from gateway.testing.recording import Conversation, Seen, answer, read_recording, recordings
from providers._driver import HttpDriver
from tests.contract.test_recordings import RECORDINGS, build, public_adapters
from tests.e2e.fakes import script as scripts

NOW = datetime(2026, 3, 2, 9, tzinfo=UTC)
FEW = settings(max_examples=250, deadline=None, suppress_health_check=[HealthCheck.too_slow])


class Moment(NamedTuple):
    """One answer that an adapter had to read."""

    place: str
    do: str
    read: Callable[[HttpResponse], Any]
    response: HttpResponse


class _Watched(Conversation):
    """Keeps how each answer was read."""

    def __init__(self, adapter: Adapter, call: Call, place: str) -> None:
        super().__init__(adapter, call)
        self.moments: list[Moment] = []
        self._place = place

    def _submit(self, step: dict[str, Any]) -> Any:
        played = super()._submit(step)
        if "response" in step and played[1] is not None:
            self._keep("submit", functools.partial(self.adapter.read_submit, self.call), step)
        return played

    def _query(self, step: dict[str, Any], request: Any, read: Any, *, handle: dict[str, str] | None = None) -> Any:
        known = dict(self.handle if handle is None else handle)
        if "response" in step:
            self._keep(step["do"], functools.partial(read, known), step)
        return super()._query(step, request, read, handle=handle)

    def _keep(self, do: str, read: Callable[[HttpResponse], Any], step: dict[str, Any]) -> None:
        self.moments.append(Moment(self._place, do, read, answer(step["response"])))


@functools.cache
def moments(word: str) -> list[Moment]:
    found: list[Moment] = []
    for path in recordings(RECORDINGS / word):
        recording = read_recording(path)
        fields = {
            "prediction": "p",
            "attempt": 1,
            "version": None,
            "idempotency_id": "3zy5cb0aqn4e8kxw7mt1vdrs2g",
            "callback_url": None,
            "deadline_seconds": 90.0,
        } | recording.call
        watched = _Watched(build(path.parent, recording.options), msgspec.convert(fields, Call), path.stem)
        for step in recording.steps:
            watched.play(step)
        found += watched.moments
    return found


# -- how an answer is spoiled -----------------------------------------------------------------------------------------

DEEP: Any = functools.reduce(lambda inner, _: [inner], range(200), 1)
JUNK = st.sampled_from(
    [None, True, False, 0, -1, 10**400, 1e308, -0.0, "", "ZOMBIE", "x" * 70_000, [], {}, [None], {"": None}, DEEP,
     "https://evil.example/x", "http://169.254.169.254/", "data:text/html;base64,PHNjcmlwdD4=", "data:,", "\ud800",
     "\u0000", "../../admin", "another-job-0000", [[]], {"url": None}, {"url": ["x"]}, [{"url": "javascript:1"}]]
)  # fmt: skip
PAGES = st.sampled_from(
    [b"", b"<html><body>502</body></html>", b"null", b"[]", b"{}", b"true", b'"ok"', b"{", b"\xff\xfe\x00", b"[" * 5000,
     b"data: {}\n\n", b'{"id":', b"NaN", b"1" * 5000, b'{"error": {"error": {"error": []}}}']
)  # fmt: skip
KINDS = st.sampled_from(["", "application/json", "text/html", "image/png", "text/event-stream", "audio/mpeg", "\x00"])
STATUSES = st.sampled_from([200, 201, 202, 204, 301, 303, 400, 401, 402, 403, 404, 409, 422, 429, 500, 502, 503, 504])


def paths(value: Any, above: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    if above:
        yield above
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, item in inner:
        yield from paths(item, (*above, key))


def spoil(body: Any, path: tuple[Any, ...], how: str, junk: Any) -> Any:
    body = copy.deepcopy(body)
    holder = body
    for key in path[:-1]:
        holder = holder[key]
    last = path[-1]
    if how == "lose":
        del holder[last]
    elif how == "nest":
        holder[last] = [holder[last]]
    elif how == "double" and isinstance(holder, list):
        holder.insert(last, copy.deepcopy(holder[last]))
    else:
        holder[last] = junk
    return body


@st.composite
def spoiled(draw: st.DrawFn, response: HttpResponse) -> HttpResponse:
    body, headers, status = response.body, dict(response.headers), response.status
    way = draw(st.sampled_from(["fields", "fields", "fields", "page", "cut", "status", "kind", "headers"]))
    if way == "fields":
        try:
            value = json.loads(body)
        except ValueError:
            value = None
        for _ in range(draw(st.integers(1, 3))):
            found = list(paths(value))
            if not found:
                break
            value = spoil(
                value,
                draw(st.sampled_from(found)),
                draw(st.sampled_from(["lose", "nest", "double", "junk", "junk"])),
                draw(JUNK),
            )
        if value is not None:
            body = json.dumps(value).encode()
    elif way == "page":
        body = draw(PAGES)
    elif way == "cut":
        body = body[: draw(st.integers(0, max(0, len(body) - 1)))]
    if way == "status" or draw(st.booleans()):
        status = draw(STATUSES)
    if way == "kind":
        headers["content-type"] = draw(KINDS)
    if way == "headers":
        names = [*headers, "retry-after", "location", "x-request-id"]
        headers[draw(st.sampled_from(names))] = draw(st.text(max_size=30))
    return HttpResponse(status=status, headers=headers, body=body)


# -- what has to hold -------------------------------------------------------------------------------------------------


def sound(outcome: Any) -> None:
    """It can be stored and shown, and says what is to be done."""
    match outcome:
        case ProviderFailure():
            shown = outcome.failure
            assert msgspec.json.decode(msgspec.json.encode(shown), type=Failure) == shown
            assert shown.message
            assert len(shown.message) < 5_000
            assert isinstance(shown.verdict, Verdict)
        case Fact():
            assert msgspec.json.decode(msgspec.json.encode(outcome), type=Fact) == outcome
            assert all(isinstance(part, str) for pair in (outcome.handle or {}).items() for part in pair)
            if outcome.phase == "failed":
                assert outcome.failure is not None
            if outcome.cost is not None:
                assert outcome.cost.nanos is None or 0 <= outcome.cost.nanos < 2**63
        case Ask():
            assert outcome.request.method
            assert all(isinstance(part, str) for pair in outcome.handle.items() for part in pair)
        case Seen():
            assert all(isinstance(part, str) for job in outcome.found for part in job.handle.values())
            assert all(job.created_at is None or job.created_at.tzinfo is not None for job in outcome.found)
            assert outcome.next is None or isinstance(outcome.next.url, str)
        case Cancellation() | str():
            pass
        case _:
            raise AssertionError(f"it said {outcome!r}")


@pytest.mark.parametrize("word", public_adapters())
def test_a_spoiled_answer_is_a_fact_a_question_or_a_failure(word: str) -> None:
    @given(data=st.data())
    @FEW
    def check(data: st.DataObject) -> None:
        moment = data.draw(st.sampled_from(moments(word)))
        response = data.draw(spoiled(moment.response))
        try:
            outcome = moment.read(response)
        except ProviderFailure as failure:
            outcome = failure
        sound(outcome)
        if moment.do == "submit" and isinstance(outcome, ProviderFailure):
            assert outcome.verdict is not Verdict.RETRY, "a submit is never simply sent again"
        if moment.do in ("poll", "ask") and isinstance(outcome, ProviderFailure):
            # The engine knows what these mean for a job; anything else would be polled for until the deadline.
            assert outcome.failure.code in ("poll_failed", "job_lost", "result_lost")

    check()


@pytest.mark.parametrize("word", public_adapters())
def test_nobody_without_a_secret_says_anything(word: str) -> None:
    adapter = build(RECORDINGS / word, {})
    steps = [
        step
        for path in recordings(RECORDINGS / word)
        for step in read_recording(path).steps
        if step["do"] == "callback" and "json" in step
    ]

    @given(data=st.data())
    @FEW
    def check(data: st.DataObject) -> None:
        step = data.draw(st.sampled_from(steps)) if steps else {"headers": {}, "json": {"id": "x"}}
        value = step["json"]
        if found := list(paths(value)):
            value = spoil(value, data.draw(st.sampled_from(found)), "junk", data.draw(JUNK))
        headers = {name: data.draw(st.sampled_from([text, "", "v1,x", "0"])) for name, text in step["headers"].items()}
        for secrets in ((), ("whsec_c2VzYW1lc2VzYW1lc2VzYW1lc2VzYW1l",), ('{"keys": [{}]}',)):
            try:
                callback = adapter.read_callback(headers, json.dumps(value).encode(), secrets=secrets, now=NOW)
            except CallbackForged:
                continue
            assert isinstance(callback, Callback)
            assert callback.fact is None

    check()


def told_of_jobs(word: str) -> list[scripts.Exchange]:
    """Answers to polls that say which job they are about."""
    script = scripts.success(word)
    forms = {form.encode() for form in (script.id, unquote(script.id or "")) if form}
    return [e for e in script.exchanges if e.do == "poll" and any(form in e.body for form in forms)]


@pytest.mark.parametrize("word", [word for word in public_adapters() if told_of_jobs(word)])
async def test_an_answer_about_somebody_elses_job_is_refused(word: str) -> None:
    script = scripts.success(word)
    about = told_of_jobs(word)[-1]
    id = unquote(script.id or "")
    other = f"{id[:-6]}{'0a0a0a' if id[-6:] != '0a0a0a' else '1b1b1b'}"
    theirs = about.body.replace(id.encode(), other.encode())

    def respond(request: httpx.Request) -> httpx.Response:
        submit = script.exchanges[0]
        if request.method == submit.request.method and not asked:
            asked.append(request)
            return httpx.Response(submit.status, headers=submit.headers, content=submit.body)
        return httpx.Response(about.status, headers=about.headers, content=theirs)

    asked: list[httpx.Request] = []
    driver = HttpDriver(word, script.adapter, transport=httpx.MockTransport(respond))
    fact = await driver.submit(script.call)
    assert fact.handle is not None
    with pytest.raises(PollFailed):
        await driver.poll(fact.handle)
    await driver.aclose()
