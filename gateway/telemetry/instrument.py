"""Every instrument there is, as data: what it is called, counts, and by which attributes. Measures nothing."""

from __future__ import annotations

import enum
from collections.abc import Iterator

import msgspec

from gateway.contract.attempt import AttemptStatus
from gateway.contract.errors import Blame, ProviderFailure
from gateway.contract.money import CostBasis
from gateway.contract.prediction import Status, WebhookEvent
from gateway.contract.route import BreakerState

OTHER = "_OTHER"  # what OpenTelemetry writes for a word that its list does not have
BREAKER_STATES = {BreakerState.CLOSED: 0, BreakerState.PROBING: 1, BreakerState.OPEN: 2}

# From an instant upstream to a video that takes an hour.
_JOB_SECONDS = (0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 20, 30, 60, 120, 300, 600, 1800, 3600)
# Its phases may be as short as a commit.
_PHASE_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, *_JOB_SECONDS)
# As OpenTelemetry's semantic conventions advise: for HTTP, and up to a held `Prefer: wait`; for generative AI.
_HTTP_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 0.75, 1, 2.5, 5, 7.5, 10, 30, 60)
_OPERATION_SECONDS = (0.01, 0.02, 0.04, 0.08, 0.16, 0.32, 0.64, 1.28, 2.56, 5.12, 10.24, 20.48, 40.96, 81.92)


class Kind(enum.StrEnum):
    COUNTER = "counter"
    GAUGE = "gauge"
    HISTOGRAM = "histogram"


class Attribute(msgspec.Struct, kw_only=True, frozen=True):
    """
    `values` is all there can be: another one is counted as `_OTHER`. None: names from the configuration or our code.

    Never an id, never what a caller made up. An attribute with the value "" is left out.
    """

    name: str
    about: str
    values: tuple[str, ...] | None = None
    is_number: bool = False

    @property
    def label(self) -> str:
        """As Prometheus has it."""
        return self.name.replace(".", "_")


class Instrument(msgspec.Struct, kw_only=True, frozen=True):
    """`unit` as UCUM has it; braces hold what is counted."""

    name: str
    kind: Kind
    unit: str
    about: str
    attributes: tuple[Attribute, ...] = ()
    bounds: tuple[float, ...] = ()  # upper ones of a histogram's buckets

    @property
    def series(self) -> str:
        """The name at /metrics; a histogram's series end in _bucket, _sum and _count."""
        words = [self.name.replace(".", "_")]
        suffix = {"s": "seconds", "By": "bytes"}.get(self.unit)
        if suffix is not None and not words[0].endswith(f"_{suffix}"):
            words.append(suffix)
        return "_".join([*words, "total"] if self.kind is Kind.COUNTER else words)

    def attribute(self, name: str) -> Attribute:
        """Raises KeyError for one that it does not have."""
        for attribute in self.attributes:
            if attribute.name == name:
                return attribute
        raise KeyError(f"{self.name} has no attribute {name}")


def _codes(failure: type[ProviderFailure]) -> Iterator[str]:
    yield failure.code
    for narrower in failure.__subclasses__():
        yield from _codes(narrower)


MODEL = Attribute(name="gen_ai.request.model", about="The public model, as configured.")
PROVIDER = Attribute(name="gen_ai.provider.name", about="The provider, as configured.")
OPERATION = Attribute(name="gen_ai.operation.name", about="What was asked of it.", values=("predict",))
ERROR = Attribute(
    name="error.type", about="Code of the failure, if there is one.", values=tuple(sorted({*_codes(ProviderFailure)}))
)
OFFER = Attribute(name="turnout.offer", about="One provider's way to serve a model, as configured.")
STATUS = Attribute(
    name="turnout.status", about="How it ended.", values=tuple(status.value for status in Status if status.is_terminal)
)
BLAME = Attribute(
    name="turnout.blame", about="Whose trouble a failure is.", values=tuple(blame.value for blame in Blame)
)
ATTEMPT = Attribute(
    name="turnout.outcome",
    about="How the attempt ended; rejected: nothing ran, abandoned: nobody knows.",
    values=tuple(status.value for status in AttemptStatus if status.is_closed),
)
FALLBACK = Attribute(name="turnout.fallback", about="Whether the last resort served.", values=("true", "false"))
PHASE = Attribute(
    name="turnout.phase",
    about="accept: until durable. lost: attempts that gave nothing. queue, cold_start, run: at the provider that gave "
    "a result. collect: files into our keeping. overhead: all of ours, accept included. delivery: from the event until "
    "the webhook's end.",
    values=("accept", "lost", "queue", "cold_start", "run", "collect", "overhead", "delivery"),
)
BASIS = Attribute(
    name="turnout.basis",
    about="Where the figure comes from.",
    values=(CostBasis.REPORTED.value, CostBasis.COMPUTED.value),
)
SETTLEMENT = Attribute(
    name="turnout.settlement",
    about="priced: it has a price. unknown: it cost something nobody told us. maybe: it may have cost something; "
    "told too late it counts once more. released: nothing.",
    values=("priced", "unknown", "maybe", "released"),
)
WASTE = Attribute(
    name="turnout.waste",
    about="Paid for, and no result of it used: it failed, another one had won, or the prediction was canceled.",
    values=("failed", "loser", "canceled"),
)
ESTIMATE = Attribute(
    name="turnout.estimate",
    about="likely: what it should cost. most: what it could cost at most, where tokens are as many as were allowed.",
    values=("likely", "most"),
)
STATE = Attribute(
    name="turnout.state",
    about="queued: nothing runs yet. running. collecting: files are copied. stopping: ended, an attempt is not. "
    "delivering: a webhook is in hand.",
    values=("queued", "running", "collecting", "stopping", "delivering"),
)
CALLBACK = Attribute(
    name="turnout.outcome",
    about="What the callback did.",
    values=("applied", "nudge", "duplicate", "forged", "unknown"),
)
POLL = Attribute(name="turnout.outcome", about="What the poll told.", values=("news", "same", "failed"))
EVENT = Attribute(name="turnout.event", about="Of the webhook.", values=tuple(event.value for event in WebhookEvent))
DELIVERY = Attribute(name="turnout.outcome", about="Of one try.", values=("delivered", "retry", "gone", "exhausted"))
RECEIVER = Attribute(
    name="turnout.state",
    about="failing: the last try failed. shut: nothing is sent for a while.",
    values=("failing", "shut"),
)
DIRECTION = Attribute(name="turnout.direction", about="Whose file it is.", values=("input", "output"))
DEVICE = Attribute(name="turnout.device", about="Where the models run.", values=("cuda", "cpu"))
VERSION = Attribute(name="turnout.policy.version", about="Of the whole set: 12 hex of the files' contents.")
RELOAD = Attribute(name="turnout.outcome", about="What became of changed files.", values=("swapped", "refused"))
ROUTE = Attribute(name="http.route", about="The path's pattern; none for an unknown path.")
METHOD = Attribute(
    name="http.request.method",
    about="The method, if it is served there.",
    values=("GET", "POST", "HEAD", "PUT", "PATCH", "DELETE", "OPTIONS", "QUERY"),
)
HTTP_STATUS = Attribute(
    name="http.response.status_code", about="499: the caller left before it was answered.", is_number=True
)


def _counter(name: str, unit: str, about: str, *attributes: Attribute) -> Instrument:
    return Instrument(name=name, kind=Kind.COUNTER, unit=unit, about=about, attributes=attributes)


def _gauge(name: str, unit: str, about: str, *attributes: Attribute) -> Instrument:
    return Instrument(name=name, kind=Kind.GAUGE, unit=unit, about=about, attributes=attributes)


def _histogram(name: str, about: str, bounds: tuple[float, ...], *attributes: Attribute) -> Instrument:
    return Instrument(name=name, kind=Kind.HISTOGRAM, unit="s", about=about, attributes=attributes, bounds=bounds)


# -- predictions ------------------------------------------------------------------------------------------------------
PREDICTIONS_CREATED = _counter("turnout.predictions.created", "{prediction}", "Predictions accepted.", MODEL)
PREDICTIONS_ENDED = _counter(
    "turnout.predictions.ended", "{prediction}", "Predictions that reached a final status.", MODEL, STATUS, BLAME
)
PREDICTIONS_RESCUED = _counter(
    "turnout.predictions.rescued",
    "{prediction}",
    "Predictions that succeeded after a failed attempt, by who saved them.",
    *(MODEL, PROVIDER, FALLBACK),
)
DEADLINE_MISSES = _counter(
    "turnout.deadline.misses", "{prediction}", "Predictions whose deadline passed before they were done.", MODEL
)
PREDICTION_DURATION = _histogram(
    "turnout.prediction.duration", "From acceptance to the final status.", _JOB_SECONDS, MODEL, STATUS
)
PHASE_DURATION = _histogram(
    "turnout.phase.duration",
    "Where the time goes. Of attempts with a result: queue, cold_start, run; of predictions: the rest. Without accept "
    "and delivery they add up to the predictions' duration. Delivery has no model.",
    _PHASE_SECONDS,
    *(PHASE, MODEL, PROVIDER),
)
BACKLOG = _gauge("turnout.backlog", "{prediction}", "What this process has in hand.", STATE)
BACKLOG_AGE = _gauge("turnout.backlog.age", "s", "For how long the oldest of it has been in that state.", STATE)

# -- attempts ---------------------------------------------------------------------------------------------------------
ATTEMPTS = _counter("turnout.attempts", "{attempt}", "Attempts that ended.", PROVIDER, MODEL, ATTEMPT, ERROR)
OPERATION_DURATION = _histogram(
    "gen_ai.client.operation.duration",
    "Attempts from our submit to their end, but for those that were rejected.",
    _OPERATION_SECONDS,
    *(OPERATION, PROVIDER, MODEL, ERROR),
)
FAILOVERS = _counter(
    "turnout.failovers", "{failover}", "Times a prediction moved on, by the provider it left.", MODEL, PROVIDER, ERROR
)
BREAKER_STATE = _gauge("turnout.breaker.state", "1", "Breaker: 0 closed, 1 probing, 2 open.", OFFER, PROVIDER, MODEL)
BREAKER_OPENINGS = _counter("turnout.breaker.openings", "{opening}", "Times a breaker opened.", OFFER, PROVIDER, MODEL)
HEADROOM = _gauge("turnout.rate_limit.headroom", "1", "Share of its rate limit that a provider says is left.", PROVIDER)
CALLBACKS = _counter("turnout.callbacks", "{callback}", "Callbacks of providers.", PROVIDER, CALLBACK)
POLLS = _counter("turnout.polls", "{poll}", "Polls of providers.", PROVIDER, POLL)

# -- money ------------------------------------------------------------------------------------------------------------
SPEND = _counter("turnout.spend.dollars", "{USD}", "Dollars settled at providers.", PROVIDER, MODEL, BASIS)
SPEND_MAYBE = _counter(
    "turnout.spend.maybe.dollars",
    "{USD}",
    "Dollars expected of attempts that may have been billed, when that became so.",
    *(PROVIDER, MODEL),
)
DOUBLE_BILL = _gauge(
    "turnout.spend.double_bill.dollars",
    "{USD}",
    "Dollars that may have been billed beside the one bill of a prediction, of the last day: an upper bound.",
)
SPEND_WASTED = _counter(
    "turnout.spend.wasted.dollars", "{USD}", "Dollars settled for attempts that won nothing.", PROVIDER, MODEL, WASTE
)
SPEND_RESERVED = _gauge(
    "turnout.spend.reserved.dollars", "{USD}", "Dollars expected of the attempts under way.", PROVIDER
)
SETTLEMENTS = _counter(
    "turnout.settlements", "{attempt}", "Attempts whose money was settled.", PROVIDER, MODEL, SETTLEMENT
)
DRIFT_EXPECTED = _counter(
    "turnout.spend.drift.expected.dollars",
    "{USD}",
    "Dollars expected of attempts with a result, whose provider told money or units: what its bills are held against.",
    *(OFFER, PROVIDER, MODEL, ESTIMATE),
)
DRIFT_BILLED = _counter(
    "turnout.spend.drift.billed.dollars",
    "{USD}",
    "Dollars settled for the same attempts: divided by what was expected of them, the drift of the estimate.",
    *(OFFER, PROVIDER, MODEL, ESTIMATE),
)

# -- deliveries, artifacts, the server --------------------------------------------------------------------------------
DELIVERIES = _counter("turnout.deliveries", "{try}", "Tries to deliver a webhook to a caller.", EVENT, DELIVERY)
DELIVERY_DURATION = _histogram("turnout.delivery.duration", "One try to deliver a webhook.", _HTTP_SECONDS, DELIVERY)
RECEIVERS = _gauge("turnout.receivers", "{receiver}", "Receivers of webhooks that do not take them.", RECEIVER)
ARTIFACTS = _counter("turnout.artifacts", "{file}", "Files taken into our keeping.", DIRECTION)
ARTIFACT_BYTES = _counter("turnout.artifacts.size", "By", "Bytes taken into our keeping.", DIRECTION)
REQUEST_DURATION = _histogram(
    "http.server.request.duration", "Requests served.", _HTTP_SECONDS, ROUTE, METHOD, HTTP_STATUS
)
POLICY = _gauge("turnout.policy", "1", "1, with the version of the policies that hold.", VERSION)
POLICY_RELOADS = _counter("turnout.policy.reloads", "{reload}", "Times policy files had changed.", RELOAD)

# -- the local backend ------------------------------------------------------------------------------------------------
LOCAL_UP = _gauge("turnout.local_backend.up", "1", "1 while the local backend serves.", DEVICE)
LOCAL_STARTS = _counter("turnout.local_backend.starts", "{start}", "Times its process was started.")
LOCAL_QUEUE = _gauge("turnout.local_backend.queue", "{prediction}", "Predictions that wait there.")
LOCAL_RUNNING = _gauge("turnout.local_backend.running", "{batch}", "Batches that run there.")
LOCAL_BATCHES = _counter("turnout.local_backend.batches", "{batch}", "Batches it has begun since its start.")
LOCAL_BATCHED = _counter(
    "turnout.local_backend.batched", "{prediction}", "Predictions in them: divided by the batches, their size."
)
LOCAL_MEMORY = _gauge("turnout.local_backend.memory", "By", "Resident memory of its process.")

INSTRUMENTS: tuple[Instrument, ...] = tuple(one for one in list(globals().values()) if isinstance(one, Instrument))


def find(name: str) -> Instrument:
    """Raises KeyError."""
    for instrument in INSTRUMENTS:
        if instrument.name == name:
            return instrument
    raise KeyError(name)


def table() -> str:
    """All of them as a Markdown table."""
    rows = ["| instrument | kind | unit | attributes | |", "|---|---|---|---|---|"]
    for one in INSTRUMENTS:
        attributes = ", ".join(f"`{attribute.name}`" for attribute in one.attributes)
        rows.append(f"| `{one.name}` | {one.kind.value} | {one.unit} | {attributes} | {one.about} |")
    return "\n".join(rows) + "\n"
