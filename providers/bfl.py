"""
Black Forest Labs' own API: everything is a job, polled at the address its submit names. Not finetuning, nor balances.

Thin: how callbacks are signed and shaped stands in the vendor's agent skill alone. They end a job only with a signature
that fits the secret we gave with it; should BFL sign otherwise, they are refused, and polls tell. Nor is it stated
whether a moderated job is charged: only a picture is given the cost that the submit told.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any, ClassVar, Literal

from gateway.contract.errors import (
    AtCapacity,
    InputModerated,
    JobLost,
    ModelFailed,
    PollFailed,
    ProviderFailure,
)
from gateway.contract.fact import Fact, Phase
from gateway.contract.provider import (
    Call,
    Callback,
    Callbacks,
    Capabilities,
    CostForm,
    HttpRequest,
    HttpResponse,
    Signature,
)
from providers._adapter import Options, dollars, ended, failure_of, kind_of, read_id
from providers._auth import Headers
from providers._bfl_word import BAD_ENDS, reason
from providers._content import bare_base64, is_file
from providers._job import JobQueue, check_name, urls_of, without
from providers._reading import Malformed, quote, read_object, words_of
from providers._signature import lower_names, verify_hmac

CREDIT_NANOS = 10_000_000  # a credit is a cent


class BflOptions(Options, kw_only=True, frozen=True):
    """`region`: where jobs are sent; "global" may hand them to any cluster."""

    region: Literal["global", "eu", "us"] = "global"


class Bfl(JobQueue[BflOptions]):
    """The offer's name is the endpoint, such as `flux-2-pro`. Output: the URL of the picture."""

    adapter = "bfl"
    base_url = "https://api.bfl.ai/v1"
    sites: Mapping[str, str] = {"eu": "https://api.eu.bfl.ai/v1", "us": "https://api.us.bfl.ai/v1"}
    origins = (".bfl.ai",)  # a job is polled at a sibling of the host it was sent to
    auth = (Headers({"x-key": "{token}"}, token="BFL_API_KEY"),)  # noqa: S106 - the name of a variable
    options_type = BflOptions
    word_keys = ("status", "state")
    words: ClassVar[Mapping[str, Phase]] = {
        "Pending": Phase.QUEUED,
        "Queued": Phase.QUEUED,
        "Processing": Phase.RUNNING,
        "Ready": Phase.SUCCEEDED,
        **dict.fromkeys(BAD_ENDS, Phase.FAILED),
    }

    def describe(self, options: BflOptions) -> Capabilities:
        return Capabilities(
            modes=frozenset({"queue"}),
            callbacks=Callbacks.SIGNED,
            signature=Signature.HMAC_SHA256,
            takes_callback_secret=True,
            cost=CostForm.MONEY,
            result_lifetime_seconds=600,
            result_hosts=("bfldeliveryprod.blob.core.windows.net",),
        )

    # -- submit ------------------------------------------------------------------------------------------------------

    def submit(self, call: Call) -> HttpRequest:
        """Raises ModelMissing for a name that is no endpoint, InputRefused for a file that is none."""
        body = without(call.input, ("webhook_url", "webhook_secret"))
        for name, value in body.items():
            if is_file(value):
                body[name] = bare_base64(value, name=name)
        if call.callback_url is not None:
            body["webhook_url"] = call.callback_url
            if call.callback_secret is not None:
                body["webhook_secret"] = call.callback_secret
        return HttpRequest(method="POST", url=f"/{check_name(call.name)}", site=self._site(call), json=body)

    def _site(self, call: Call) -> str:
        region = self.options_for(call).region
        return "" if region == "global" else region

    def keep(self, call: Call, body: Mapping[str, Any]) -> dict[str, str]:
        # Verbatim: the driver refuses a job whose address is not on BFL's hosts. The price is told here alone.
        kept = {}
        if urls := urls_of([body.get("polling_url")]):
            kept["polling_url"] = urls[0]
        if site := self._site(call):
            kept["site"] = site
        cost = body.get("cost")
        if isinstance(cost, (int, float)) and dollars(cost, each_nanos=CREDIT_NANOS) is not None:
            kept["credits"] = str(cost)
        return kept

    def refusal(self, response: HttpResponse) -> ProviderFailure:
        # 429 speaks of tasks under way, of which there may be 24, not of a rate.
        kind = AtCapacity if response.status == 429 else kind_of(response.status)
        return failure_of(kind, response, message=_words(response))

    # -- poll --------------------------------------------------------------------------------------------------------

    def poll(self, handle: dict[str, str]) -> HttpRequest | None:
        if "polling_url" in handle:
            return HttpRequest(method="GET", url=handle["polling_url"])
        id = read_id(handle)
        if id is None:
            return None
        return HttpRequest(method="GET", url=f"/get_result?id={id}", site=handle.get("site", ""))

    def read_poll(self, handle: dict[str, str], response: HttpResponse) -> Fact:
        is_lost = response.status == 404
        if not is_lost:
            told, body = self.asked(handle, response)
            is_lost = self.word_of(body) == "Task not found"
        if is_lost and "polling_url" not in handle:
            # Without its own address it was asked for at a host that need not be the one that runs it.
            raise PollFailed("this host does not know the task; another may", status=response.status)
        return ended(JobLost, "", handle=handle) if response.status == 404 else self.told(told, body)

    def told(self, handle: dict[str, str], body: dict[str, Any], *, otherwise: Phase = Phase.RUNNING) -> Fact:
        fact = super().told(handle, body, otherwise=otherwise)
        runs = fact.phase is Phase.QUEUED and body.get("progress")  # `Pending` is said until the end
        return Fact(phase=Phase.RUNNING, handle=handle) if runs else fact

    def end(self, phase: Phase, handle: dict[str, str], body: dict[str, Any]) -> Fact:
        word = self.word_of(body) or ""
        if phase is Phase.FAILED:
            is_filter = word == "Error" and "policy" in str(body.get("error"))
            return ended(InputModerated if is_filter else BAD_ENDS[word], reason(word, body), handle=handle)
        result = body.get("result")
        result = result if isinstance(result, dict) else {}
        pictures = urls_of([result.get("sample")])
        if not pictures:
            return ended(ModelFailed, "the task is ready, and there is no picture", handle=handle)
        metrics: dict[str, Any] = {"image_count": 1}
        if type(result.get("duration")) in (int, float):
            metrics["predict_time"] = result["duration"]
        cost = dollars(handle.get("credits"), each_nanos=CREDIT_NANOS)
        return Fact(phase=phase, handle=handle, output=pictures[0], metrics=metrics, cost=cost)

    # -- callbacks ---------------------------------------------------------------------------------------------------

    def read_callback(
        self, headers: Mapping[str, str], body: bytes, *, secrets: tuple[str, ...], now: datetime
    ) -> Callback:
        """
        Verified, and then only a nudge: what the job costs was told at the submit, and stands beside the job's address.

        The poll that follows says the same, and ends it with its price. Raises CallbackForged.
        """
        if secrets:
            scheme, _, signature = lower_names(headers).get("x-bfl-signature", "").partition("=")
            verify_hmac([signature] if scheme == "sha256" else [], body, secrets=secrets)
        return Callback(fact=None)


def _words(response: HttpResponse) -> str:
    """`{"detail": …}`, or `{"error": a code, "message": …}`, of which the latter is for people."""
    try:
        message = read_object(response.body).get("message")
    except Malformed:
        message = None
    return quote(message) if isinstance(message, str) and message else words_of(response)
