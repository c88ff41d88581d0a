"""
The JSON that the page reads, as Structs: the one place where both sides agree. Gathers nothing.

Money is nano-dollars, None where unknown. Times are ISO 8601 in UTC, durations seconds. Texts are shown as text, never
as markup: prompts, logs and errors are written by strangers.
"""

from __future__ import annotations

from datetime import datetime

import msgspec

from gateway.contract.ledger import Exposure


class Shape(msgspec.Struct, kw_only=True, frozen=True):
    """Everything the page is told."""


# -- GET /ops/v1/overview, and event `overview` of GET /ops/v1/events ---


class Point(Shape, kw_only=True, frozen=True):
    """One minute of the last hour."""

    at: datetime
    succeeded: int = 0
    failed: int = 0  # failed and aborted
    canceled: int = 0
    nanos: int = 0  # settled in it
    unknown: int = 0  # attempts that ended in it with a price nobody knows


class Trouble(Shape, kw_only=True, frozen=True):
    """Predictions or attempts that failed the same way within the last quarter of an hour."""

    model: str
    provider: str | None  # None: the prediction itself failed, whatever was tried
    code: str
    example: str  # the latest message
    prediction: str  # the latest one
    count: int
    owners: dict[str, int]  # for whom: key's name → count
    first_at: datetime
    last_at: datetime


class ProviderState(Shape, kw_only=True, frozen=True):
    provider: str
    state: str  # ok, degraded (some offers out), out (all offers out), limited, full, down (local backend), forced
    why: str
    until: datetime | None = None  # when it is tried again
    in_flight: int = 0
    limit: int | None = None  # most in flight
    headroom: float | None = None  # 0…1 of its rate limit that is left, if it tells


class Burn(Shape, kw_only=True, frozen=True):
    """Money of the last hour, but for what is open now."""

    settled_nanos: int
    wasted_nanos: int  # spent on attempts that did not serve: losers, failed, canceled
    reserved_nanos: int  # expected of what is under way
    maybe: int  # attempts that may have been billed, and nobody knows
    maybe_nanos: int  # what they would have cost
    unknown_share: float | None  # of ended attempts that ran: price unknown; None if none ended
    budget_nanos: int | None = None  # per hour; None: no budget is set


class Phases(Shape, kw_only=True, frozen=True):
    """p95 of each part of a prediction's time, seconds; None where there is no data. The words are the metrics'."""

    accept: float | None = None  # until durable
    lost: float | None = None  # attempts that gave nothing
    queue: float | None = None
    cold_start: float | None = None
    run: float | None = None
    collect: float | None = None  # files into our keeping
    delivery: float | None = None
    overhead: float | None = None  # our own, accept included


class Latency(Shape, kw_only=True, frozen=True):
    model: str
    ended: int
    p50: float | None
    p95: float | None
    deadline_misses: int
    phases: Phases


class Stage(Shape, kw_only=True, frozen=True):
    """One stage of the pipeline: queued, running, collecting, delivering."""

    stage: str
    count: int
    oldest_seconds: float | None
    ages: tuple[int, int, int, int]  # younger than 10 s, 1 min, 10 min, older


class StuckPrediction(Shape, kw_only=True, frozen=True):
    id: str
    model: str
    status: str
    provider: str | None
    age_seconds: float
    why: str


class DeadReceiver(Shape, kw_only=True, frozen=True):
    host: str
    waiting: int
    oldest_seconds: float
    last_error: str


class Cell(Shape, kw_only=True, frozen=True):
    """One offer: a model at a provider. Figures are of the last hour."""

    model: str
    provider: str
    offer: str
    state: str  # closed, open, probing, limited
    forced: str | None = None  # "open" or "closed" by hand
    why: str = ""
    until: datetime | None = None
    share: float | None = None  # of the model's attempts
    attempts: int = 0
    in_flight: int = 0
    p50: float | None = None
    p95: float | None = None
    success: float | None = None  # 0…1
    mean_nanos: int | None = None  # cost of one prediction that it served
    is_fallback: bool = False


class Matrix(Shape, kw_only=True, frozen=True):
    models: tuple[str, ...]
    providers: tuple[str, ...]
    cells: tuple[Cell, ...]  # only where there is an offer


class Happened(Shape, kw_only=True, frozen=True):
    """One line of the timeline."""

    id: int  # ascending
    at: datetime
    kind: str  # ejected, recovered, forced, failover, rescued, reloaded, refused, canceled, redelivered, local, started
    title: str
    text: str = ""
    model: str | None = None
    provider: str | None = None
    offer: str | None = None
    prediction: str | None = None
    who: str | None = None  # the key's name, where a person did it


class Totals(Shape, kw_only=True, frozen=True):
    """Of the last hour; `open` is of now."""

    created: int
    succeeded: int
    failed: int
    canceled: int
    rescued: int  # succeeded after a failed attempt
    open: int


class Overview(Shape, kw_only=True, frozen=True):
    now: datetime
    version: str
    started_at: datetime
    is_draining: bool
    policies: tuple[str, ...]
    policy_version: str  # changes with each reload
    totals: Totals
    series: tuple[Point, ...]  # 60 of them, oldest first
    troubles: tuple[Trouble, ...]  # most frequent first
    providers: tuple[ProviderState, ...]
    burn: Burn
    latency: tuple[Latency, ...]
    pipeline: tuple[Stage, ...]
    stuck: tuple[StuckPrediction, ...]
    receivers: tuple[DeadReceiver, ...]
    matrix: Matrix
    timeline: tuple[Happened, ...]  # newest first, at most 100


# -- GET /ops/v1/predictions, and event `prediction` of the stream ---


class Shown(Shape, kw_only=True, frozen=True):
    """An output or input, ready to be shown: one of our own links, or a text cut to a bearable length."""

    kind: str  # image, video, audio, file, text, json
    url: str | None = None  # with image, video, audio, file
    content_type: str | None = None
    size_bytes: int | None = None
    text: str | None = None  # with text and json
    is_cut: bool = False


class Row(Shape, kw_only=True, frozen=True):
    id: str
    model: str
    status: str
    owner: str
    source: str  # api, web …
    created_at: datetime
    completed_at: datetime | None
    seconds: float  # so far, or in all
    provider: str | None  # that serves or served
    attempts: int
    is_rescued: bool
    is_fallback: bool
    nanos: int | None
    is_cost_known: bool
    basis: str  # of the cost: reported, computed, unknown
    error_code: str | None
    error: str | None
    output: tuple[Shown, ...] = ()  # the first few


class Rows(Shape, kw_only=True, frozen=True):
    """Newest first. `next` is the `position` of the page after it."""

    predictions: tuple[Row, ...]
    next: str | None = None


# -- GET /ops/v1/predictions/{id} ---


class ReasonShown(Shape, kw_only=True, frozen=True):
    code: str
    text: str


class ChoiceShown(Shape, kw_only=True, frozen=True):
    """One line of the plan, best first; the dropped ones last."""

    offer: str
    provider: str
    kept: bool
    is_fallback: bool
    score: float | None
    expected_nanos: int | None
    expected_seconds: float | None
    reasons: tuple[ReasonShown, ...]


class AttemptShown(Shape, kw_only=True, frozen=True):
    number: int
    offer: str
    provider: str
    remote: str
    status: str
    is_fallback: bool
    begun_at: datetime
    accepted_at: datetime | None
    running_at: datetime | None
    ended_at: datetime | None
    deadline_at: datetime
    reason: ReasonShown | None
    failure: ReasonShown | None
    expected_nanos: int | None
    nanos: int | None
    basis: str
    ledger: str | None  # reserved, settled, released, maybe
    job: str | None  # the provider's id of the job, if there is one
    logs: str  # its end
    evidence: str | None = None  # how far the exchange that failed had come
    resolved_by: str | None = None  # whose word ended the doubt about its submit: submit, callback, listing …
    pays_twice: bool = False  # begun while something else may have been running
    look_at: datetime | None = None  # given up, and looked for again then


class DeliveryShown(Shape, kw_only=True, frozen=True):
    id: str
    event: str
    host: str
    created_at: datetime
    due_at: datetime
    tries: int
    ended: str | None
    last_status: int | None
    last_error: str | None
    is_final: bool


class Detail(Shape, kw_only=True, frozen=True):
    """Why it went there."""

    row: Row
    version: str
    policy: str
    deadline_at: datetime
    input: str  # JSON, indented; long texts cut, data URIs named by type and size
    files: tuple[Shown, ...]  # of the input, as far as they are ours
    output: tuple[Shown, ...]
    logs: str
    story: tuple[str, ...]  # the whole in a few plain sentences: planned, tried, moved on because, ended, cost
    plan: tuple[ChoiceShown, ...]
    attempts: tuple[AttemptShown, ...]
    deliveries: tuple[DeliveryShown, ...]
    can_cancel: bool
    can_redeliver: bool
    double_bill_upper_bound: Exposure = Exposure()  # the most that may have been billed beside its one bill


# -- GET /ops/v1/ledger ---


class MaybeLine(Shape, kw_only=True, frozen=True):
    """An attempt of which nobody knows whether it was billed."""

    prediction: str
    attempt: int
    owner: str
    provider: str
    offer: str
    nanos: int | None  # what it would have cost
    at: datetime
    is_double: bool  # its prediction has had another bill, or may have had


class Ledger(Shape, kw_only=True, frozen=True):
    """What may have been billed, of predictions created since then; a price nobody knows is counted, and not added."""

    since: datetime
    maybe: Exposure
    double_bill_upper_bound: Exposure
    lines: tuple[MaybeLine, ...]
    is_all: bool  # False: there are more, and both sums are too small


# -- GET /ops/v1/budgets ---


class BudgetRule(Shape, kw_only=True, frozen=True):
    """As a policy says it."""

    policy: str
    budget: str
    limit_nanos: int
    per: str  # hour, day, month
    by: str  # policy, key, label:NAME
    when_spent: str  # refuse, cheapest, local
    unknown_nanos: int | None  # set aside for an unknown price; None: such offers are left out


class BudgetLine(Shape, kw_only=True, frozen=True):
    """What has come of a budget in a window that runs: `of` one key or label, or empty, of all that count together."""

    budget: str
    by: str
    of: str
    per: str
    window: str  # 2026-11-24T13, 2026-11-24 or 2026-11, in UTC
    ends_at: datetime
    limit_nanos: int
    spent_nanos: int
    reserved_nanos: int  # set aside for what is under way, or may have been billed
    left_nanos: int


class Budgets(Shape, kw_only=True, frozen=True):
    rules: tuple[BudgetRule, ...]
    lines: tuple[BudgetLine, ...]  # the first to end first
    is_all: bool  # False: there are more lines


# -- what buttons send, and the trail they leave ---


class ForceBreaker(Shape, kw_only=True, frozen=True, forbid_unknown_fields=True):
    """POST /ops/v1/breakers."""

    offer: str
    action: str  # open, close, release
    reason: str  # at least one word


class Act(Shape, kw_only=True, frozen=True, forbid_unknown_fields=True):
    """POST /ops/v1/predictions/{id}/cancel and …/redeliver."""

    reason: str


class AuditLine(Shape, kw_only=True, frozen=True):
    id: int
    at: datetime
    who: str
    action: str  # breaker.open, breaker.close, breaker.release, prediction.cancel, prediction.redeliver
    target: str
    reason: str
    outcome: str  # done, or why not


class Audit(Shape, kw_only=True, frozen=True):
    """GET /ops/v1/audit, newest first."""

    lines: tuple[AuditLine, ...]
