"""The story of a prediction: true, in plain English, and short whatever strangers wrote into it."""

from __future__ import annotations

from typing import Any

import pytest
from msgspec.structs import replace

from gateway.contract.attempt import AttemptStatus
from gateway.contract.errors import DeadlineExceeded, JobTimedOut, ModelFailed, NotSent, RateLimited
from gateway.contract.prediction import Status
from gateway.contract.reason import Reason
from gateway.contract.route import Choice, Plan
from gateway.dashboard.story import seconds_text, story_of
from gateway.store.protocol import Delivery
from tests.unit.dashboard.making import START, after, attempt, prediction


def choice(provider: str, reason: str, *, kept: bool = True) -> Choice:
    text = Reason(code="next", written=reason)
    return Choice(offer=f"acme/upscale@{provider}", provider=provider, kept=kept, reasons=(text,))


def plan(*choices: Choice) -> Plan:
    return Plan(policy="balanced", choices=choices, max_attempts=3, pay_twice_up_to_nanos=0)


def delivery(**changes: Any) -> Delivery:
    fields: dict[str, Any] = {
        "id": "msg_1",
        "prediction": "p",
        "owner": "alice",
        "url": "https://hooks.example/x?token=hidden",
        "event": "completed",
        "sequence": 0,
        "body": b"",
        "created_at": after(2),
        "due_at": after(12),
        "is_final": True,
    }
    return Delivery(**(fields | changes))


def test_a_rescue_is_told_from_the_plan_to_the_webhook() -> None:
    refused = attempt(provider="fal", ended=0.5, failure=RateLimited("slow down.", retry_after_seconds=12), nanos=0)
    won = attempt(
        2,
        "replicate",
        begun=0.5,
        running=1.0,
        ended=4.1,
        nanos=1_200_000,
        reason=Reason(code="cheapest", written="$0.0012, no other"),
    )
    one = replace(
        prediction(refused, won, ended=4.2, webhook="https://hooks.example/x"),
        plan=plan(
            choice("fal", "cheapest"),
            choice("replicate", "next"),
            choice("luma", "breaker open until 12:03:10", kept=False),
        ),
    )
    assert story_of(one, [delivery(ended="delivered", tries=2)], now=after(9)) == (
        "Accepted from alice for acme/upscale at 12:00:00 UTC, with 60 s to its deadline.",
        "Planned 2 offers by policy balanced: fal, replicate; 1 dropped: luma, breaker open until 12:03:10.",
        "fal refused: rate limited (retry in 12 s): slow down; moved on to replicate after 0.4 s.",
        "replicate succeeded after 3.6 s, 0.5 s of it waiting and 3.1 s running (chosen: $0.0012, no other).",
        "Succeeded after 4.2 s in all, served by replicate: rescued after 1 failed attempt.",
        "It cost $0.0012 (reported).",
        "The webhook arrived at hooks.example after 2 tries.",
    )


@pytest.mark.parametrize(
    ("made", "told"),
    [
        (attempt(failure=NotSent("no route to host")), "north was not reached: no route to host."),
        (attempt(failure=ModelFailed("CUDA", status=500)), "north failed after 0.9 s: model failed, HTTP 500: CUDA."),
        (attempt(failure=ModelFailed("got 500", status=500)), "north failed after 0.9 s: model failed: got 500."),
        (
            attempt(failure=JobTimedOut("too slow"), status=AttemptStatus.ABANDONED),
            "north was given up after 0.9 s, and may have billed: job timed out: too slow.",
        ),
        (
            attempt(ended=None, status=AttemptStatus.UNKNOWN),
            "north was sent the job 9.9 s ago and has not answered: it may be running, and billed.",
        ),
        (attempt(ended=None, running=4.0), "north has been running it for 6.0 s."),
        (
            attempt(ended=None, status=AttemptStatus.ACCEPTED, accepted_at=after(8)),
            "north took it 2.0 s ago, and it is queued there.",
        ),
        (attempt(ended=None, status=AttemptStatus.INTENT), "north is being asked."),
        (attempt(status=AttemptStatus.CANCELED), "north was stopped by us after 0.9 s, before it ran."),
        (
            attempt(status=AttemptStatus.COLLECTING),
            "north succeeded; its files are being copied into our keeping.",
        ),
    ],
)
def test_every_state_of_an_attempt_has_its_sentence(made: Any, told: str) -> None:
    if made.failure is not None and made.failure.code == "not_sent":
        made = replace(made, status=AttemptStatus.REJECTED)
    assert story_of(prediction(made, ended=None), [], now=after(10))[1] == told


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"status": Status.FAILED, "error": DeadlineExceeded().failure.message}, "Failed after 2.0 s: The prediction"),
        ({"status": Status.CANCELED, "cancel_requested_at": after(1.5)}, "it was asked for after 1.5 s"),
        ({"status": Status.CANCELED}, "at its deadline, while it ran"),
        ({"status": Status.ABORTED}, "before anything ran"),
        ({"ended": None}, "Open for 10 s; 50 s are left."),
        ({"ended": None, "deadline_at": after(5)}, "its deadline has passed."),
        ({"ended": None, "cancel_requested_at": after(5)}, "a cancel was asked for."),
    ],
)
def test_every_end_has_its_sentence(changes: dict[str, Any], told: str) -> None:
    assert told in " ".join(story_of(prediction(**changes), [], now=after(10)))


@pytest.mark.parametrize(
    ("attempts", "told"),
    [
        ([attempt(nanos=None)], "What it cost is unknown."),
        (
            [attempt(failure=ModelFailed(), nanos=None), attempt(2, nanos=2_000_000_000)],
            "It cost at least $2.00; what 1 attempt cost is unknown.",
        ),
        (
            [attempt(failure=ModelFailed(), nanos=500_000_000), attempt(2, nanos=1_000_000_000)],
            "It cost $1.50 (reported). $0.50 of it went to attempts that did not serve.",
        ),
        ([attempt(failure=RateLimited(), nanos=0)], "Nothing ran, and nothing was spent."),
        ([], "Nothing ran, and nothing was spent."),
    ],
)
def test_money_that_nobody_knows_is_never_told_as_nothing(attempts: list[Any], told: str) -> None:
    assert told in " ".join(story_of(prediction(*attempts), [], now=after(10)))


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({}, "The webhook to hooks.example has not been tried yet."),
        ({"tries": 3, "last_status": 503}, "failed 3 tries, last with: HTTP 503; the next one is in 2.0 s."),
        ({"tries": 1, "ended": "gone", "last_status": 410}, "wants no webhook any more (410), after 1 try."),
        ({"tries": 13, "ended": "exhausted", "last_error": "no answer"}, "given up after 13 tries (exhausted)"),
    ],
)
def test_every_fate_of_a_webhook_has_its_sentence(changes: dict[str, Any], told: str) -> None:
    story = story_of(prediction(webhook="https://hooks.example/x?token=hidden"), [delivery(**changes)], now=after(10))
    assert told in story[-1]
    assert "hidden" not in " ".join(story)


def test_a_strangers_novel_is_cut_and_stays_on_one_line() -> None:
    made = attempt(failure=ModelFailed("<b>\n" + "long words " * 10_000))
    story = story_of(prediction(made), [], now=after(10))
    assert all(len(sentence) < 500 and "\n" not in sentence for sentence in story)
    assert any("<b> long words" in sentence for sentence in story)


def test_a_plan_of_many_offers_is_told_in_a_few_words() -> None:
    choices = [choice(f"p{n}", "fine") for n in range(30)] + [choice(f"q{n}", "out", kept=False) for n in range(30)]
    told = story_of(replace(prediction(), plan=plan(*choices)), [], now=after(10))[1]
    assert told.startswith("Planned 30 offers by policy balanced: p0, p1, p2, p3, p4, p5 and 24 more; 30 dropped: q0,")
    assert told.endswith("and 24 more.")
    assert story_of(replace(prediction(), plan=plan()), [], now=START)[1] == (
        "Policy balanced found no offer for the model."
    )


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (-1, "0.0 s"),
        (0.0042, "4 ms"),
        (0.4, "0.4 s"),
        (12.4, "12 s"),
        (200, "3 min 20 s"),
        (180, "3 min"),
        (7_500, "2 h 5 min"),
        (7_200, "2 h"),
    ],
)
def test_times_read_as_people_say_them(seconds: float, text: str) -> None:
    assert seconds_text(seconds) == text
