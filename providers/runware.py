"""
Runware: one address, to which lists of tasks are sent, each with an id of ours. Not its WebSocket, streams of text,
uploads and the managing of models.

The id makes a submit safe to repeat: one that is taken already is answered with `conflictTaskUUID`, and polled from
then on. Thin: by which status errors come, how long files are kept (`ttl` says it), and how a task is forgotten are not
stated; codes beyond the documented few are read by the families that the vendor's own client sorts them into.
"""

from __future__ import annotations

import hashlib
import uuid
from typing import Any, Literal

from gateway.contract.errors import JobFailed, JobLost, PollFailed
from gateway.contract.fact import Fact, Phase
from gateway.contract.provider import Call, Callbacks, Capabilities, CostForm, HttpRequest, HttpResponse
from providers._adapter import (
    HttpAdapter,
    Options,
    ended,
    failure_of,
    kind_of,
    malformed_submit,
    poll_refusal,
)
from providers._auth import bearer
from providers._job import without
from providers._reading import Malformed, read_object
from providers._runware_error import is_about_asking, kind_of_code, words_of_error
from providers._runware_task import about, count_in, read_task, stranger_in

_OURS = ("taskType", "taskUUID", "deliveryMethod", "webhookURL", "uploadEndpoint", "includeCost", "model")
_HELD = ("image", "text", "caption")  # tasks that end while a line can be held; videos must be asked for


class RunwareOptions(Options, kw_only=True, frozen=True):
    """
    `task`: the taskType. `delivery`: whether the submit is held until the end; if nothing is said, tasks that make
    pictures or text are held, all others polled.
    """

    task: str = "imageInference"
    delivery: Literal["sync", "async"] | None = None

    @property
    def is_held(self) -> bool:
        return self.delivery == "sync" or (self.delivery is None and self.task.startswith(_HELD))


class Runware(HttpAdapter[RunwareOptions]):
    """
    The offer's name is the model's AIR. Output: the list of what was made, in the order of the answer: addresses,
    data URIs, texts, or for 3D the `outputs` as they are.
    """

    adapter = "runware"
    base_url = "https://api.runware.ai"
    auth = (bearer("RUNWARE_API_KEY"),)
    options_type = RunwareOptions

    def describe(self, options: RunwareOptions) -> Capabilities:
        return Capabilities(
            modes=frozenset({"sync", "queue"}),
            callbacks=Callbacks.UNSIGNED,
            idempotent_submit=True,
            cost=CostForm.MONEY,
            result_forms=frozenset({"url", "data", "json"}),
            min_poll_seconds=1.0,
            result_hosts=(".runware.ai",),
        )

    # -- submit ------------------------------------------------------------------------------------------------------

    def submit(self, call: Call) -> HttpRequest:
        options = self.options_for(call)
        task: dict[str, Any] = {
            "taskType": options.task,
            "taskUUID": task_uuid(call.idempotency_id),
            "model": call.name,
            "includeCost": True,
            **without(call.input, _OURS),
        }
        if not options.is_held:
            task["deliveryMethod"] = "async"
            if call.callback_url is not None:
                task["webhookURL"] = call.callback_url
        return HttpRequest(method="POST", url="/v1", json=[task], holds_until_end=options.is_held)

    def read_submit(self, call: Call, response: HttpResponse) -> Fact:
        is_success = 200 <= response.status < 300
        id = task_uuid(call.idempotency_id)
        count = call.input.get("numberResults")
        handle = {"id": id, **({"count": str(count)} if type(count) is int and 1 < count < 1_000 else {})}
        try:
            body = read_object(response.body)
        except Malformed as malformed:
            raise malformed_submit(response, str(malformed)) if is_success else self.refusal(response) from None
        items, errors = about(id, body)
        if any(error.get("code") == "conflictTaskUUID" for error in errors):
            return Fact(phase=Phase.QUEUED, handle=handle)  # it came before: this is its second sending
        if items or (errors and is_success):
            return read_task(
                items, errors, handle=handle, wanted=1 if self.options_for(call).is_held else count_in(handle)
            )
        if not errors:
            raise (
                malformed_submit(response, "its answer is about no task of ours")
                if is_success
                else self.refusal(response)
            )
        kind = kind_of_code(errors[0].get("code")) or kind_of(response.status)
        if issubclass(kind, JobFailed):
            return ended(kind, words_of_error(errors[0]), handle=handle)
        raise failure_of(kind, response, message=words_of_error(errors[0]))

    # -- poll --------------------------------------------------------------------------------------------------------

    def poll(self, handle: dict[str, str]) -> HttpRequest | None:
        if "id" not in handle:
            return None
        task = {"taskType": "getResponse", "taskUUID": handle["id"]}
        return HttpRequest(method="POST", url="/v1", json=[task])

    def read_poll(self, handle: dict[str, str], response: HttpResponse) -> Fact:
        try:
            body = read_object(response.body)
        except Malformed as malformed:
            if not 200 <= response.status < 300:
                raise poll_refusal(response) from None
            raise PollFailed(f"the provider answered, but {malformed}", status=response.status) from None
        items, errors = about(handle.get("id", ""), body)
        if not items:
            for error in errors:
                if kind_of_code(error.get("code")) is JobLost:
                    raise failure_of(JobLost, response, message=words_of_error(error))
        told = [error for error in errors if not is_about_asking(error)]
        if items or (told and response.status < 500):
            return read_task(items, told, handle=handle, wanted=count_in(handle))
        stranger = stranger_in(body)
        if stranger is not None and not errors:
            return Fact(phase=Phase.RUNNING, handle={**handle, "id": stranger})
        if not 200 <= response.status < 300:
            raise poll_refusal(response)
        words = words_of_error(errors[0]) if errors else "the provider answered about no task of ours"
        raise PollFailed(words, status=response.status)

    # Callbacks are not signed: the base's answer, a nudge to poll, is all they can be.


def task_uuid(idempotency_id: str) -> str:
    """A UUID of version 4, as Runware asks for, that is always the same for the same id of ours."""
    return str(uuid.UUID(bytes=hashlib.sha256(idempotency_id.encode()).digest()[:16], version=4))
