"""The page "why it went there" for any row: plan, attempts, money and sentences that fit it. Invents no row."""

from __future__ import annotations

from datetime import datetime, timedelta

from gateway.dashboard import shape

INPUT = """{
  "prompt": "a red kite over a green hill, late light, film grain",
  "width": 1024,
  "height": 1024,
  "steps": 28,
  "image": "[image/png, 412 kB]"
}"""
LOGS = "Using seed: 41027\nloading weights… 1.2 s\n" + "".join(
    f"{step * 4:3d}%|{'█' * step}{' ' * (25 - step)}| {step}/25\n" for step in range(1, 26)
)


def detail_of(row: shape.Row) -> shape.Detail:
    ended = row.completed_at
    attempts = _attempts(row)
    is_done = ended is not None
    return shape.Detail(
        row=row,
        version="9f3c2a7e51d04b6680e1c0f3a9d27b55" * 2,
        policy="balanced",
        deadline_at=row.created_at + timedelta(minutes=10),
        input=INPUT,
        files=(),
        output=row.output,
        logs=LOGS if row.status == "succeeded" else "",
        story=_story(row),
        plan=_plan(row),
        attempts=attempts,
        deliveries=_deliveries(row),
        can_cancel=not is_done,
        can_redeliver=is_done,
    )


def _plan(row: shape.Row) -> tuple[shape.ChoiceShown, ...]:
    def choice(provider: str, score: float | None, *reasons: tuple[str, str], kept: bool = True) -> shape.ChoiceShown:
        return shape.ChoiceShown(
            offer=f"{row.model}@{provider}",
            provider=provider,
            kept=kept,
            is_fallback=provider == "local",
            score=score,
            expected_nanos=3_000_000 if kept else None,
            expected_seconds=2.4 if kept else None,
            reasons=tuple(shape.ReasonShown(code=code, text=text) for code, text in reasons),
        )

    first, second = ("fal", row.provider or "replicate") if row.attempts > 1 else (row.provider or "fal", "together")
    gone, elsewhere = [name for name in ("runpod", "deepinfra", "modal") if name not in (first, second)][:2]
    return (
        choice(first, 0.914, ("ranked", "cheapest that meets the deadline: $0.0025 expected, $0.0031 at the next")),
        choice(second, 0.822, ("ranked", "1.3 times the price of the first, 0.4 s faster")),
        choice("local", None, ("fallback", "serves when nobody else does")),
        choice(gone, None, ("breaker_open", "out: 4 of its last 6 attempts timed out"), kept=False),
        choice(elsewhere, None, ("region", "policy keeps region eu, this offer is in us"), kept=False),
    )


def _attempts(row: shape.Row) -> tuple[shape.AttemptShown, ...]:
    if row.attempts == 0:
        return ()
    begun = row.created_at + timedelta(seconds=0.02)
    failed: tuple[shape.AttemptShown, ...] = ()
    if row.attempts > 1:
        ended = begun + timedelta(seconds=row.seconds * 0.35)
        failed = (_attempt(row, 1, "fal", begun, ended, "failed"),)
        begun = ended + timedelta(seconds=0.01)
    served = {"succeeded": "succeeded", "failed": "failed", "canceled": "canceled"}.get(row.status, "running")
    return (*failed, _attempt(row, len(failed) + 1, row.provider or "fal", begun, row.completed_at, served))


def _attempt(
    row: shape.Row, number: int, provider: str, begun: datetime, ended: datetime | None, status: str
) -> shape.AttemptShown:
    length = timedelta(seconds=row.seconds) if ended is None else ended - begun
    is_failed = status == "failed"
    return shape.AttemptShown(
        number=number,
        offer=f"{row.model}@{provider}",
        provider=provider,
        remote=f"{provider}/{row.model.partition('/')[2]}",
        status=status,
        is_fallback=row.is_fallback and number == row.attempts,
        begun_at=begun,
        accepted_at=begun + length * 0.06,
        running_at=begun + length * 0.22,
        ended_at=ended,
        deadline_at=row.created_at + timedelta(minutes=10),
        reason=shape.ReasonShown(code="ranked", text="first of the plan" if number == 1 else "next of the plan"),
        failure=shape.ReasonShown(code="server_error", text="503 Service Unavailable") if is_failed else None,
        expected_nanos=3_000_000,
        nanos=0 if is_failed else row.nanos,
        basis="computed",
        ledger="released" if is_failed else "settled" if ended else "reserved",
        job=f"req_{number}7c1e09f2b4",
        logs="503 Service Unavailable\nretry later\n" if is_failed else "",
    )


def _story(row: shape.Row) -> tuple[str, ...]:
    told = [
        f"Accepted from {row.owner} for {row.model}, with 10 min to its deadline.",
        "Planned 3 offers by policy balanced; 2 dropped: one is out, one is in another region.",
    ]
    if row.attempts > 1:
        told.append(
            "Tried fal first: it answered 503 Service Unavailable after it had taken the job, nothing was billed."
        )
        told.append(f"Moved on to {row.provider}, the next of the plan, which succeeded.")
    elif row.provider:
        told.append(f"Tried {row.provider}, the first of the plan.")
    if row.error:
        told.append(f"Failed: {row.error}.")
    elif row.status == "succeeded":
        told.append(f"Succeeded after {row.seconds:.1f} s" + (", rescued." if row.is_rescued else "."))
        told.append("It cost what the provider's price says, and its caller's receiver was told.")
    return tuple(told)


def _deliveries(row: shape.Row) -> tuple[shape.DeliveryShown, ...]:
    if row.completed_at is None:
        return ()
    return (
        shape.DeliveryShown(
            id=f"msg_{row.id}_1",
            event="completed",
            host="hooks.web.example",
            created_at=row.completed_at,
            due_at=row.completed_at,
            tries=2,
            ended="delivered",
            last_status=200,
            last_error=None,
            is_final=True,
        ),
    )
