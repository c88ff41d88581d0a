"""Signatures that others accept, and one try against receivers of every kind, on real sockets."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import socket
from datetime import UTC, datetime

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from replicate.webhook import Webhooks, WebhookSigningSecret
from standardwebhooks import Webhook

from gateway.contract.clock import SystemClock
from gateway.contract.errors import ConfigurationError
from gateway.delivery import webhook
from gateway.delivery.webhook import Outcome, Result, Sender, Signer, new_secret
from gateway.net.target import Guard
from gateway.store.protocol import Delivery
from gateway.testing import ManualClock
from tests.unit.delivery.fakes import START, Answer, FakeStore, Received, Receiver, receiving, saying

SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"


def test_documented_vector_of_replicate_is_reproduced() -> None:
    signature = Signer((SECRET,)).sign("msg_p5jXN8AQM9LWM0D4loKWxJek", 1614265330, b'{"test": 2432232314}')
    assert signature == "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="


@settings(max_examples=300, deadline=None)
@given(key=st.binary(min_size=24, max_size=64), body=st.text(min_size=1), old=st.booleans())
def test_standardwebhooks_and_replicates_client_accept_our_signatures(key: bytes, body: str, old: bool) -> None:
    secret = "whsec_" + base64.b64encode(key).decode()
    id, timestamp = "msg_" + "a" * 26, int(datetime.now(UTC).timestamp())
    raw = body.encode("utf-8", "ignore")
    text = raw.decode()
    if not text:
        return
    signer = Signer((new_secret(), secret) if old else (secret,))
    headers = {
        "webhook-id": id,
        "webhook-timestamp": str(timestamp),
        "webhook-signature": signer.sign(id, timestamp, raw),
    }
    Webhook(secret).verify(raw, headers, json_parse=False)
    Webhooks.validate(headers=headers, body=text, secret=WebhookSigningSecret(key=secret), tolerance=300)
    with pytest.raises(Exception, match="No matching signature"):
        Webhook(secret).verify(raw + b" ", headers, json_parse=False)


def test_new_secrets_are_usable_different_and_free_of_underscores() -> None:
    secrets = {new_secret() for _ in range(200)}
    assert len(secrets) == 200
    assert all(secret.count("_") == 1 for secret in secrets)
    Signer(tuple(secrets))


@pytest.mark.parametrize(
    "secret",
    ["", "whsec_", "abc", "whsec_YQ==", "whsec_" + "a_" * 20, "whsec_Mf KQ", base64.b64encode(b"x" * 24).decode()],
)
def test_unusable_secret_is_a_configuration_error_that_does_not_quote_it(secret: str) -> None:
    with pytest.raises(ConfigurationError, match=r"webhooks\.secret") as caught:
        Signer((secret,))
    assert len(secret) < 7 or secret not in str(caught.value)


async def send(receiver: Receiver, *, timeout_seconds: float = 5, url: str = "", times: int = 1) -> Outcome:
    store = FakeStore(ManualClock(START))
    delivery = store.rows[store.put(1, url or receiver.url, sequence=7)]
    guard = Guard(["127.0.0.1"], allow_http=True)
    sender = Sender(guard, (SECRET,), SystemClock(), timeout_seconds=timeout_seconds)
    try:
        for _ in range(times):
            outcome = await sender.send(delivery)
        return outcome
    finally:
        await sender.aclose()


async def test_a_try_carries_the_snapshot_and_the_standards_headers() -> None:
    async with receiving() as receiver:
        outcome = await send(receiver)
    (got,) = receiver.received
    assert outcome.result is Result.DELIVERED
    assert (outcome.status, outcome.error) == (200, None)
    assert (got.method, got.path, got.body) == ("POST", "/hook?key=abc", b'{"number":1}')
    assert got.headers["content-type"] == "application/json"
    assert got.headers["webhook-id"] == "msg_" + "1".zfill(26)
    assert got.headers["turnout-sequence"] == "7"
    assert "authorization" not in got.headers
    Webhook(SECRET).verify(got.body, got.headers)
    Webhooks.validate(
        headers=got.headers, body=got.body.decode(), secret=WebhookSigningSecret(key=SECRET), tolerance=300
    )


@pytest.mark.parametrize(
    ("status", "result"),
    [
        ("200 OK", Result.DELIVERED), ("204 No Content", Result.DELIVERED), ("299 Odd", Result.DELIVERED),
        ("301 Moved", Result.REFUSED), ("304 Same", Result.REFUSED),
        ("400 Bad", Result.REFUSED), ("404 No", Result.REFUSED),
        ("410 Gone", Result.GONE), ("408 Slow", Result.UNREACHED), ("429 Many", Result.UNREACHED),
        ("500 Broken", Result.UNREACHED), ("503 Away", Result.UNREACHED),
    ],
)  # fmt: skip
async def test_status_decides_what_a_try_was(status: str, result: Result) -> None:
    async with receiving(saying(status)) as receiver:
        outcome = await send(receiver)
    assert (outcome.result, outcome.status) == (result, int(status[:3]))


async def test_redirect_is_a_failure_and_is_not_followed() -> None:
    async with receiving() as other, receiving(saying("307 Away", f"location: {other.url}")) as receiver:
        outcome = await send(receiver)
    assert (outcome.result, outcome.status, other.connections) == (Result.REFUSED, 307, 0)


async def drip_head(received: Received, writer: asyncio.StreamWriter) -> None:
    writer.write(b"HTTP/1.1 200 OK\r\n")
    while True:
        writer.write(b"x-drip: 1\r\n")
        await writer.drain()
        await asyncio.sleep(0.01)


async def drip_body(received: Received, writer: asyncio.StreamWriter) -> None:
    writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 100000\r\n\r\n")
    while True:
        writer.write(b"x")
        await writer.drain()
        await asyncio.sleep(0.01)


async def silence(received: Received, writer: asyncio.StreamWriter) -> None:
    await asyncio.Event().wait()


async def hang_up(received: Received, writer: asyncio.StreamWriter) -> None:
    writer.close()


async def babble(received: Received, writer: asyncio.StreamWriter) -> None:
    writer.write(b"\x00\xff garbage\r\n\r\n")
    writer.close()


@pytest.mark.parametrize("answer", [drip_head, silence])
async def test_receiver_that_never_ends_is_cut_at_the_deadline(answer: Answer) -> None:
    async with receiving(answer) as receiver, asyncio.timeout(5):
        outcome = await send(receiver, timeout_seconds=0.2)
    assert (outcome.result, outcome.error) == (Result.UNREACHED, "no answer within 0.2 s")
    assert 0.15 < outcome.seconds < 2


async def test_where_nobody_picks_up_is_given_up_before_one_that_thinks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(webhook, "CONNECT_SECONDS", 0.2)
    with contextlib.ExitStack() as stack:
        full = stack.enter_context(socket.socket())
        full.bind(("127.0.0.1", 0))
        full.listen(0)
        for _ in range(4):  # its queue is full after one or two, and then the system answers nobody
            caller = stack.enter_context(socket.socket())
            caller.setblocking(False)
            caller.connect_ex(full.getsockname())
        outcome = await send(Receiver(), timeout_seconds=10, url=f"http://127.0.0.1:{full.getsockname()[1]}/")
    assert (outcome.result, outcome.error) == (Result.UNREACHED, "no connection within 0.2 s")
    assert outcome.is_slow
    assert 0.15 < outcome.seconds < 5


async def test_receiver_that_drips_its_answer_has_the_delivery_and_is_cut_off(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(webhook, "ANSWER_SECONDS", 0.1)
    async with receiving(drip_body) as receiver, asyncio.timeout(5):
        outcome = await send(receiver)
    assert (outcome.result, outcome.error) == (Result.DELIVERED, None)
    assert outcome.seconds < 2


async def test_huge_answer_is_not_read() -> None:
    sent = 0

    async def flood(received: Received, writer: asyncio.StreamWriter) -> None:
        nonlocal sent
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 1000000000\r\n\r\n")
        while True:
            writer.write(b"x" * 65536)
            await writer.drain()
            sent += 65536

    async with receiving(flood) as receiver, asyncio.timeout(5):
        outcome = await send(receiver)
    assert outcome.result is Result.DELIVERED
    assert sent < 50_000_000


@pytest.mark.parametrize("answer", [hang_up, babble])
async def test_broken_answer_is_an_unreached_receiver_in_words_without_the_url(answer: Answer) -> None:
    async with receiving(answer) as receiver:
        outcome = await send(receiver)
    assert outcome.result is Result.UNREACHED
    assert outcome.error
    assert "abc" not in outcome.error


async def test_closed_port_and_forbidden_address_are_outcomes() -> None:
    async with receiving() as receiver:
        pass
    refused = await send(receiver)
    forbidden = await send(receiver, url="http://169.254.169.254/latest")
    assert (refused.result, refused.error) == (Result.UNREACHED, "the receiver could not be connected to")
    assert forbidden.result is Result.UNREACHED
    assert "not on the public internet" in (forbidden.error or "")


async def test_connection_is_used_again_and_no_cookie_is_kept() -> None:
    async with receiving(saying("200 OK", "set-cookie: a=b; path=/", body=b"ok")) as receiver:
        await send(receiver, times=3)
    assert receiver.connections == 1
    assert [("cookie" in got.headers) for got in receiver.received] == [False, False, False]


@pytest.mark.parametrize(
    ("header", "seconds"),
    [
        ("120", 120.0), ("0", 0.0), ("-1", None), ("1e9", None), ("99999999999", None), ("soon", None),
        ("", None), ("²", None),
        ("Sun, 01 Mar 2026 12:01:00 GMT", 60.0), ("Sun, 01 Mar 2026 11:00:00 GMT", 0.0),
        ("Sun, 99 Mar 2026 99:00:00 GMT", None),
    ],
)  # fmt: skip
async def test_retry_after_is_read_in_both_forms(header: str, seconds: float | None) -> None:
    clock = ManualClock(START)
    store = FakeStore(clock)
    async with receiving(saying("503 Away", f"retry-after: {header}")) as receiver:
        sender = Sender(Guard(["127.0.0.1"], allow_http=True), (SECRET,), clock)
        delivery: Delivery = store.rows[store.put(1, receiver.url)]
        outcome = await sender.send(delivery)
        await sender.aclose()
    assert outcome.retry_after_seconds == seconds
