"""Queues of jobs: an id for a submit, then a word for where the job is. What words and ends mean is each provider's."""

from __future__ import annotations

import abc
import re
from collections.abc import Callable, Iterable, Mapping
from typing import Any, ClassVar

from gateway.contract.errors import ModelMissing, PollFailed
from gateway.contract.fact import Fact, Phase
from gateway.contract.provider import Ask, Call, Cancellation, HttpResponse
from providers._adapter import AnyOptions, HttpAdapter, failure_of, malformed_submit, phase_of, read_id
from providers._reading import Malformed, read_object

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*(?:/[A-Za-z0-9][A-Za-z0-9._-]*)*")
# "Insufficient credits", "You do not have enough credits to run this task."
_NO_CREDIT = re.compile(r"(?i)\b(?:insufficient|enough|out of|no)\s+(?:\w+\s+)?credits?\b")


class JobQueue(HttpAdapter[AnyOptions]):
    """
    An adapter of a provider that only queues: submit and poll answer with the same object, an id and a word in it.

    A provider names `id_key`, `word_keys` (the first that holds a word counts) and `words`, and says in `end` what an
    end means; further parts of the handle come from `keep`.
    """

    id_key: ClassVar[str] = "id"
    word_keys: ClassVar[tuple[str, ...]] = ("status",)
    words: ClassVar[Mapping[str, Phase]]

    def keep(self, call: Call, body: Mapping[str, Any]) -> dict[str, str]:
        """What the handle has to hold beside the id, out of the answer to the submit."""
        return {}

    @abc.abstractmethod
    def end(self, phase: Phase, handle: dict[str, str], body: dict[str, Any]) -> Fact:
        """The fact of a job whose word means that it is over: `phase` is one of the three ends."""

    def word_of(self, body: Mapping[str, Any]) -> str | None:
        found = (body.get(key) for key in self.word_keys)
        return next((word for word in found if isinstance(word, str)), None)

    def told(self, handle: dict[str, str], body: dict[str, Any], *, otherwise: Phase = Phase.RUNNING) -> Fact:
        """What the object says of the job; `otherwise` for a word that nobody knows, or none."""
        phase = phase_of(self.word_of(body), self.words, otherwise=otherwise)
        return self.end(phase, handle, body) if phase.is_end else Fact(phase=phase, handle=handle)

    def read_submit(self, call: Call, response: HttpResponse) -> Fact:
        body = self.accepted(response)
        id = read_id(body, self.id_key)
        if id is None:
            raise malformed_submit(response, "its answer has no usable id")
        return self.told({"id": id, **self.keep(call, body)}, body, otherwise=Phase.QUEUED)

    def read_poll(self, handle: dict[str, str], response: HttpResponse) -> Fact | Ask:
        return self.told(*self.asked(handle, response))

    def asked(self, handle: dict[str, str], response: HttpResponse) -> tuple[dict[str, str], dict[str, Any]]:
        """The answer to a question about a job, and the handle it names. Raises JobLost, PollFailed."""
        body = self.polled(response)
        id = read_id(body, self.id_key)
        if id is None or self.word_of(body) is None:
            raise PollFailed("the provider answered the poll with something else", status=response.status)
        return {**handle, "id": id}, body


def read_stop(response: HttpResponse, phase_in: Callable[[dict[str, Any]], Phase]) -> Cancellation:
    """What the answer to a cancel says, which tells of the job as a poll does: `phase_in` finds where it is."""
    if response.status in (404, 410):
        return Cancellation.TOO_LATE
    if not 200 <= response.status < 300:
        raise failure_of(PollFailed, response)
    try:
        phase = phase_in(read_object(response.body))
    except Malformed:
        return Cancellation.REQUESTED
    if phase is Phase.CANCELED:
        return Cancellation.STOPPED
    return Cancellation.TOO_LATE if phase.is_end else Cancellation.REQUESTED


def check_name(name: str) -> str:
    """`name`, if it can stand in a path as it is. Raises ModelMissing."""
    if not _NAME.fullmatch(name):
        raise ModelMissing(f"{name[:100]!r} is no name of a model or an endpoint there")
    return name


def without(input: Mapping[str, Any], names: Iterable[str]) -> dict[str, Any]:
    """The input without those of the provider's words that are ours to say, such as where to call back."""
    ours = frozenset(names)
    return {name: value for name, value in input.items() if name not in ours}


def urls_of(values: Any) -> list[str]:
    """Those of a list that are addresses; empty for what is no list."""
    found = values if isinstance(values, list) else []
    return [value for value in found if isinstance(value, str) and value.startswith(("https://", "http://"))]


def speaks_of_credit(words: str) -> bool:
    """True for a refusal that says in plain words that there is no credit left, where no code says it."""
    return _NO_CREDIT.search(words) is not None
