"""What adapters are made from, and what an HTTP status means. Pure; no vendor's words, and no reading of bodies."""

from __future__ import annotations

import abc
import functools
import logging
import re
from collections.abc import Mapping
from datetime import datetime
from decimal import Decimal
from typing import Any, ClassVar, Generic, TypeVar

import msgspec

from gateway.contract.errors import (
    AtCapacity,
    ConfigurationError,
    CredentialRefused,
    InputRefused,
    InputUnfit,
    JobLost,
    ModelMissing,
    OutcomeUnknown,
    PollFailed,
    ProviderFailure,
    RateLimited,
    Refused,
    WalletEmpty,
)
from gateway.contract.fact import Fact, Phase
from gateway.contract.money import MAX_NANOS, NANOS, Cost, CostBasis
from gateway.contract.provider import (
    SPEC_VERSION,
    Ask,
    Auth,
    Call,
    Callback,
    Cancellation,
    Capabilities,
    EventReader,
    File,
    HttpRequest,
    HttpResponse,
    Listing,
    ServerSentEvent,
)
from gateway.contract.wording import nearest
from providers._reading import Malformed, quote, read_object, words_of
from providers._retry_after import read_retry_after

_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,127}")
_STATE = re.compile(r"[A-Za-z][A-Za-z_-]{1,31}")
_log = logging.getLogger(__name__)


# -- what a status means ---------------------------------------------------------------------------------------------

# A final 4xx ran nothing. 408, 409, 425 and every 5xx may have been said after the job had begun.
_REFUSALS: dict[int, type[ProviderFailure]] = {
    301: Refused,
    307: Refused,
    308: Refused,
    400: InputRefused,
    401: CredentialRefused,
    402: WalletEmpty,
    403: CredentialRefused,
    404: ModelMissing,
    408: OutcomeUnknown,
    409: OutcomeUnknown,
    410: ModelMissing,
    413: InputUnfit,  # nothing is wrong with the provider, and others may take more
    422: InputRefused,
    425: OutcomeUnknown,
    429: RateLimited,
    501: Refused,
}


def refusal(response: HttpResponse, *, message: str = "", runs_nothing_on_503: bool = False) -> ProviderFailure:
    """
    The failure an answer to a submit means when its adapter knows no better.

    `runs_nothing_on_503`: the provider documents that its 503 says "no room", and never "it broke while running".
    """
    nothing_ran = response.status == 503 and runs_nothing_on_503
    return failure_of(AtCapacity if nothing_ran else kind_of(response.status), response, message=message)


def kind_of(status: int) -> type[ProviderFailure]:
    """What a status other than 2xx means by itself."""
    return _REFUSALS.get(status) or (Refused if 400 <= status < 500 else OutcomeUnknown)


def failure_of(kind: type[ProviderFailure], response: HttpResponse, *, message: str = "") -> ProviderFailure:
    """`kind`, with what the answer says: its words, its status, and when to come back."""
    return kind(
        message or words_of(response) or f"{_sentence(kind)} (HTTP {response.status})",
        retry_after_seconds=read_retry_after(response),
        status=response.status,
    )


def poll_refusal(response: HttpResponse) -> ProviderFailure:
    """The failure a poll's answer other than 2xx means: the job is unknown there, or the poll did not get through."""
    if response.status in (404, 410):
        return failure_of(JobLost, response)
    return failure_of(PollFailed, response)


def upload_refusal(response: HttpResponse) -> ProviderFailure:
    """The failure an upload's answer other than 2xx means: the file is too large, or it did not get through."""
    return failure_of(InputUnfit if response.status == 413 else PollFailed, response)


def malformed_submit(response: HttpResponse, reason: str) -> OutcomeUnknown:
    """A 2xx without sense: the provider said yes to something, and we do not know to what."""
    return OutcomeUnknown(f"the provider accepted, but {reason}", status=response.status)


def _sentence(kind: type[ProviderFailure]) -> str:
    return (kind.__doc__ or kind.code).strip().splitlines()[0].rstrip(".")


# -- options ---------------------------------------------------------------------------------------------------------


class Options(msgspec.Struct, kw_only=True, frozen=True):
    """What ops may say of any HTTP provider; adapters add theirs. Set per provider, and all but hosts per offer too."""

    result_hosts: tuple[str, ...] | None = None
    input_forms: frozenset[str] | None = None
    max_inline_bytes: int | None = None
    min_poll_seconds: float | None = None
    result_lifetime_seconds: float | None = None

    def adjust(self, capabilities: Capabilities) -> Capabilities:
        said = {name: value for name in _ADJUSTABLE if (value := getattr(self, name)) is not None}
        return msgspec.structs.replace(capabilities, **said)


_ADJUSTABLE = Options.__struct_fields__
AnyOptions = TypeVar("AnyOptions", bound=Options)


def check_options(options: Mapping[str, Any], kind: type[AnyOptions], *, adapter: str) -> AnyOptions:
    """For load time: raises ConfigurationError for an unknown key, naming the nearest right one, or a wrong value."""
    known = kind.__struct_fields__
    for key in options:
        if key not in known:
            near = nearest(key, known)
            remedy = f"did you mean {near!r}?" if near else f"known are {', '.join(sorted(known))}"
            raise ConfigurationError(f"options of adapter {adapter}: unknown key {key!r}; {remedy}")
    try:
        return msgspec.convert(dict(options), kind)
    except msgspec.ValidationError as error:
        raise ConfigurationError(f"options of adapter {adapter}: {error}") from None


def read_options(defaults: Mapping[str, Any], options: Mapping[str, Any], kind: type[AnyOptions]) -> AnyOptions:
    """For one call: the provider's options, overlaid with the offer's. Raises Refused if they cannot be read."""
    try:
        return msgspec.convert({**defaults, **options}, kind)
    except msgspec.ValidationError as error:
        raise Refused(f"the offer's options are wrong: {error}") from None


class HttpAdapter(abc.ABC, Generic[AnyOptions]):
    """
    What adapters are made from: options, capabilities, and an answer for every verb that a provider does not have.

    An adapter names `adapter` (the word for it in a configuration), `base_url`, `auth` and `options_type`, says in
    `describe` what the provider can do, and writes `submit` and `read_submit`; the rest only where there is something
    to ask.
    """

    spec_version = SPEC_VERSION
    adapter: ClassVar[str]
    base_url: str = ""
    sites: Mapping[str, str] = {}
    origins: tuple[str, ...] = ()
    auth: tuple[Auth, ...] = ()
    options_type: type[AnyOptions]
    provider_options: ClassVar[frozenset[str]] = frozenset()  # options that no offer may say otherwise

    def __init__(self, name: str = "", options: Mapping[str, Any] | None = None) -> None:
        self.name = name or self.adapter
        self._options = dict(options or {})
        chosen = self.check(self._options)
        self.capabilities = chosen.adjust(self.describe(chosen))

    def check(self, options: Mapping[str, Any]) -> AnyOptions:
        """Raises ConfigurationError for options that are none of this adapter's."""
        return check_options(options, self.options_type, adapter=self.adapter)

    def check_offer(self, options: Mapping[str, Any]) -> None:
        """Raises ConfigurationError for options that an offer of this provider cannot have."""
        key = self._overruled(options)
        if key:
            raise ConfigurationError(
                f"options of adapter {self.adapter}: `{key}` is for the provider to say, and not for an offer"
            )
        self.check({**self._options, **options})

    def _overruled(self, options: Mapping[str, Any]) -> str:
        """An option that an offer says otherwise than its provider, and may not; empty if there is none."""
        reserved = {"result_hosts", *self.provider_options} & options.keys()
        return next((key for key in sorted(reserved) if options[key] != self._options.get(key)), "")

    def capabilities_for(self, options: Mapping[str, Any]) -> Capabilities:
        """What `describe` says of an offer with these options; those that cannot be read are the submit's to refuse."""
        if not options:
            return self.capabilities
        try:
            chosen = read_options(self._options, options, self.options_type)
        except Refused:
            return self.capabilities
        return chosen.adjust(self.describe(chosen))

    def options_for(self, call: Call) -> AnyOptions:
        """The provider's options, overlaid with the offer's. Raises Refused if they cannot be read."""
        if key := self._overruled(call.options):
            raise Refused(f"the offer's options are wrong: `{key}` is for the provider to say")
        return read_options(self._options, call.options, self.options_type)

    # -- for adapters to say ---------------------------------------------------------------------------------------

    @abc.abstractmethod
    def describe(self, options: AnyOptions) -> Capabilities:
        """What the provider can do, used with these options."""

    @abc.abstractmethod
    def submit(self, call: Call) -> HttpRequest:
        """What to send."""

    @abc.abstractmethod
    def read_submit(self, call: Call, response: HttpResponse) -> Fact:
        """What the answer means; raises a ProviderFailure for a refusal, or for no sense."""

    def refusal(self, response: HttpResponse) -> ProviderFailure:
        """The failure that an answer to a submit other than 2xx means."""
        return refusal(response)

    def read_events(self, call: Call) -> EventReader:
        return UnexpectedStream()

    def poll(self, handle: dict[str, str]) -> HttpRequest | None:
        return None

    def read_poll(self, handle: dict[str, str], response: HttpResponse) -> Fact | Ask:
        raise PollFailed("the provider cannot be asked about a job", status=response.status)

    def cancel(self, handle: dict[str, str]) -> HttpRequest | None:
        return None

    def read_cancel(self, handle: dict[str, str], response: HttpResponse) -> Cancellation | Ask:
        raise PollFailed("the provider cannot be asked to stop a job", status=response.status)

    def listing(self, since: datetime) -> HttpRequest | None:
        return None

    def read_listing(self, response: HttpResponse) -> Listing:
        raise PollFailed("the provider does not list its jobs", status=response.status)

    def marks(self, call: Call) -> dict[str, str]:
        return {}

    def upload(self, file: File) -> HttpRequest | None:
        return None

    def read_upload(self, file: File, handle: dict[str, str], response: HttpResponse) -> str | Ask:
        raise PollFailed("the provider takes no uploads", status=response.status)

    def callback_keys(self) -> HttpRequest | None:
        return None

    def read_callback(
        self, headers: Mapping[str, str], body: bytes, *, secrets: tuple[str, ...], now: datetime
    ) -> Callback:
        return Callback(fact=None)

    # -- for adapters to use ---------------------------------------------------------------------------------------

    def accepted(self, response: HttpResponse) -> dict[str, Any]:
        """The object that an answer to a submit is. Raises its refusal, or OutcomeUnknown if it makes no sense."""
        if not 200 <= response.status < 300:
            raise self.refusal(response)
        try:
            return read_object(response.body)
        except Malformed as malformed:
            raise malformed_submit(response, str(malformed)) from None

    def polled(self, response: HttpResponse) -> dict[str, Any]:
        """The object that an answer to a poll or cancel is. Raises JobLost or PollFailed."""
        if not 200 <= response.status < 300:
            raise poll_refusal(response)
        try:
            return read_object(response.body)
        except Malformed as malformed:
            raise PollFailed(f"the provider answered, but {malformed}", status=response.status) from None


def read_id(body: Mapping[str, Any], key: str = "id") -> str | None:
    """The job's id, if it is one that can stand in a path."""
    id = body.get(key)
    return id if isinstance(id, str) and _ID.fullmatch(id) else None


def read_amount(value: Any) -> float | None:
    """A number that is not negative and makes sense, or the text of one, as headers have them; None for all else."""
    if isinstance(value, bool) or not isinstance(value, (int, float, str)):
        return None
    try:
        amount = float(value)
    except (ValueError, OverflowError):
        return None
    return amount if 0 <= amount < 1e9 else None


def phase_of(word: Any, words: Mapping[str, Phase], *, otherwise: Phase = Phase.RUNNING) -> Phase:
    """What a provider's word for a state means. One that nobody knows yet claims the least: it goes on."""
    if isinstance(word, str) and word in words:
        return words[word]
    if word is not None:
        _note_unknown(word if isinstance(word, str) and _STATE.fullmatch(word) else "something else than a word")
    return otherwise


@functools.lru_cache(maxsize=256)
def _note_unknown(word: str) -> None:
    # Once for each, since every poll of such a job meets it again. What is no plain word may be anybody's text.
    _log.warning("a provider says a job is %r, which is no state we know", word)


def ended(kind: type[ProviderFailure], message: str, **fields: Any) -> Fact:
    """The fact of a job that ended badly, so that nothing of it runs on; `fields` are the fact's other fields."""
    failure = msgspec.structs.replace(kind(quote(message) or _sentence(kind)).failure, maybe_running=False)
    return Fact(phase=Phase.FAILED, failure=failure, **fields)


def dollars(amount: Any, *, each_nanos: int = NANOS, may_be_free: bool = False) -> Cost | None:
    """
    The cost that a provider reports, in dollars or in credits of `each_nanos`; None for what is no amount.

    0 is what many say who do not know: it counts only where the provider means it (`may_be_free`: a refund).
    """
    if isinstance(amount, bool) or not isinstance(amount, (int, float, str)):
        return None
    try:
        nanos = Decimal(str(amount)) * each_nanos
        whole = int(nanos.to_integral_value())
    except (ArithmeticError, ValueError):
        return None
    least = 0 if may_be_free else 1
    return Cost(nanos=whole, basis=CostBasis.REPORTED) if least <= whole <= MAX_NANOS else None


# -- streams ---------------------------------------------------------------------------------------------------------


class UnexpectedStream:
    """The reader of an adapter that never asks for server-sent events: whatever they say, it cannot be told."""

    def read(self, event: ServerSentEvent) -> Fact | None:
        raise OutcomeUnknown("the provider answered with a stream of events that was not asked for")

    def end(self) -> Fact:
        raise OutcomeUnknown("the provider answered with a stream of events that was not asked for")
