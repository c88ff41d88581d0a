from __future__ import annotations

import base64
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st
from standardwebhooks.webhooks import Webhook, WebhookVerificationError

from gateway.contract.errors import CallbackForged
from providers._signature import signing_key, verify, verify_bearer

# Published in the suites of both official Replicate clients.
VECTOR_SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
VECTOR_BODY = b'{"test": 2432232314}'
VECTOR_HEADERS = {
    "webhook-id": "msg_p5jXN8AQM9LWM0D4loKWxJek",
    "webhook-timestamp": "1614265330",
    "webhook-signature": "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=",
}
VECTOR_TIME = datetime.fromtimestamp(1614265330, UTC)

keys = st.binary(min_size=1, max_size=64)
ids = st.text(st.characters(min_codepoint=33, max_codepoint=126, exclude_characters=","), min_size=1, max_size=40)


def secret_of(key: bytes) -> str:
    return "whsec_" + base64.b64encode(key).decode()


def signed(key: bytes, id: str, now: datetime, body: bytes) -> dict[str, str]:
    signature = Webhook(key).sign(msg_id=id, timestamp=now, data=body.decode())
    return {"webhook-id": id, "webhook-timestamp": str(int(now.timestamp())), "webhook-signature": signature}


def is_accepted(headers: dict[str, str], body: bytes, secrets: tuple[str, ...], now: datetime) -> bool:
    try:
        verify(headers, body, secrets=secrets, now=now)
    except CallbackForged:
        return False
    return True


def test_published_vector_is_genuine() -> None:
    id = verify(VECTOR_HEADERS, VECTOR_BODY, secrets=(VECTOR_SECRET,), now=VECTOR_TIME)
    assert id == "msg_p5jXN8AQM9LWM0D4loKWxJek"


@given(key=keys, id=ids, body=st.text(max_size=200))
def test_what_the_reference_library_signs_is_genuine(key: bytes, id: str, body: str) -> None:
    now = datetime.now(UTC)
    assert is_accepted(signed(key, id, now, body.encode()), body.encode(), (secret_of(key),), now)


@given(
    key=keys,
    other=keys,
    id=ids,
    body=st.text(max_size=60),
    change=st.sampled_from(["none", "body", "id", "time", "key", "signature", "version", "old", "new"]),
    flip=st.integers(min_value=0, max_value=10_000),
)
def test_the_reference_library_and_we_agree(
    key: bytes, other: bytes, id: str, body: str, change: str, flip: int
) -> None:
    now = datetime.now(UTC)
    shift = {"old": -600, "new": 600}.get(change, 0)
    headers = signed(key, id, now + timedelta(seconds=shift), body.encode())
    if change == "body":
        body += "x"
    elif change == "id":
        headers["webhook-id"] += "x"
    elif change == "time":
        headers["webhook-timestamp"] = str(int(headers["webhook-timestamp"]) - 1)
    elif change == "signature":
        raw = bytearray(base64.b64decode(headers["webhook-signature"].removeprefix("v1,")))
        raw[flip % len(raw)] ^= 1 << flip % 8
        headers["webhook-signature"] = "v1," + base64.b64encode(raw).decode()
    elif change == "version":
        headers["webhook-signature"] = headers["webhook-signature"].replace("v1,", "v2,")
    secret = other if change == "key" else key
    try:
        Webhook(secret).verify(body, headers, json_parse=False)
        reference = True
    except WebhookVerificationError:
        reference = False
    assert is_accepted(headers, body.encode(), (secret_of(secret),), now) is reference


@given(name=st.sampled_from(sorted(VECTOR_HEADERS)), value=st.text(max_size=80))
def test_whatever_the_headers_hold_it_is_genuine_or_forged(name: str, value: str) -> None:
    headers = VECTOR_HEADERS | {name: value}
    genuine = is_accepted(headers, VECTOR_BODY, (VECTOR_SECRET,), VECTOR_TIME)
    assert not genuine or value.split() == VECTOR_HEADERS[name].split() or VECTOR_HEADERS[name] in value.split()


@pytest.mark.parametrize(
    "timestamp",
    ["1614265330.0", " 1614265330", "+1614265330", "١٦١٤٢٦٥٣٣٠", "1_614_265_330", "0x6038", "", "nan", "-1"],
)
def test_a_time_that_is_no_whole_number_of_seconds_is_forged(timestamp: str) -> None:
    assert not is_accepted(
        VECTOR_HEADERS | {"webhook-timestamp": timestamp}, VECTOR_BODY, (VECTOR_SECRET,), VECTOR_TIME
    )


@pytest.mark.parametrize(("seconds", "genuine"), [(300, True), (-300, True), (301, False), (-301, False)])
def test_the_window_is_five_minutes_both_ways(seconds: int, genuine: bool) -> None:
    now = VECTOR_TIME + timedelta(seconds=seconds)
    assert is_accepted(VECTOR_HEADERS, VECTOR_BODY, (VECTOR_SECRET,), now) is genuine


def test_any_of_many_secrets_and_any_of_many_signatures_will_do() -> None:
    headers = VECTOR_HEADERS | {
        "webhook-signature": "v1a,eA== v1,AAAA  " + VECTOR_HEADERS["webhook-signature"] + " v1,ignored nonsense"
    }
    secrets = (secret_of(b"older"), "whsec_not base64!", "", "schlüssel", VECTOR_SECRET)
    assert is_accepted(headers, VECTOR_BODY, secrets, VECTOR_TIME)
    assert not is_accepted(headers, VECTOR_BODY, secrets[:-1], VECTOR_TIME)
    assert not is_accepted(headers, VECTOR_BODY, (), VECTOR_TIME)


@pytest.mark.parametrize("secret", ["", "whsec_", "whsec_????", "schlüssel"])
def test_a_secret_that_is_none_is_told_at_once(secret: str) -> None:
    with pytest.raises(ValueError, match="whsec_"):
        signing_key(secret)


def test_a_secret_may_come_without_prefix_and_padding() -> None:
    assert signing_key("c2VzYW1l") == signing_key("whsec_c2VzYW1l") == b"sesame"
    assert signing_key("whsec_c2VzYW1lcw") == signing_key("whsec_c2VzYW1lcw==") == b"sesames"


@given(st.text(max_size=40))
def test_a_shared_secret_is_shown_whole_or_the_callback_is_forged(shown: str) -> None:
    try:
        verify_bearer({"Authorization": f"Bearer {shown}"}, secrets=("sesame", ""))
    except CallbackForged:
        assert shown.strip() != "sesame"
    else:
        assert shown.strip() == "sesame"
