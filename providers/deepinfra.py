"""
DeepInfra: its native inference API, and OpenAI's dialect beside it.

Native answers are the model's own object without its bookkeeping (`images`, `text`, `results`, `embeddings`, `audio`,
`video_url` …), or the plain output of a Cog model; the dialect's are those of `openai_compatible`. What a run cost is
told in dollars, natively; the dialect's `usage.estimated_cost` is taken for the same.
Left out: webhooks, since they are unsigned and there is no poll to prove one by, and the native API's own streams.
Thin: `usage.estimated_cost` is known from third parties; what a 423 means (taken for a plain refusal); headers that
tell of limits (a concurrency of 200 per model, by the docs' prose); how long a `video_url` lives.
"""

from __future__ import annotations

from typing import Any, Literal

from msgspec.structs import replace

from gateway.contract.errors import ModelFailed, OutputModerated, ProviderFailure, WalletEmpty
from gateway.contract.fact import Fact, Phase
from gateway.contract.money import Cost
from gateway.contract.provider import (
    Call,
    Callbacks,
    Cancel,
    Capabilities,
    CostForm,
    HttpRequest,
    HttpResponse,
)
from providers._adapter import dollars, ended, malformed_submit
from providers._auth import bearer
from providers._job import check_name, without
from providers._openai_chat import is_amount
from providers._openai_dialect import FORM_FILE_CHARACTERS, DialectOptions, OpenAIDialect
from providers._openai_error import read_refusal
from providers._openai_routes import ROUTES
from providers._prediction import read_prediction

_BOOKKEEPING = ("request_id", "inference_status")
_NO_MONEY = ("balance", "payment", "billing", "top up", "insufficient funds")


class DeepInfraOptions(DialectOptions, kw_only=True, frozen=True):
    """`native`: `/v1/inference/<model>`; all others are OpenAI's. `cog`: the model takes and gives Cog's envelope."""

    route: Literal[
        "native", "chat", "completions", "images", "edits", "embeddings", "speech", "transcription", "translation"
    ] = "native"
    cog: bool = False


class DeepInfra(OpenAIDialect[DeepInfraOptions]):
    """Speaks to DeepInfra. Every call is held until its end; nothing can be stopped."""

    adapter = "deepinfra"
    base_url = "https://api.deepinfra.com/v1"
    auth = (bearer("DEEPINFRA_API_KEY"),)
    options_type = DeepInfraOptions

    def describe(self, options: DeepInfraOptions) -> Capabilities:
        route = ROUTES.get(options.route)
        return Capabilities(
            modes=frozenset({"sync", "stream"}),
            cancel=Cancel.NONE,
            callbacks=Callbacks.NONE,
            pollable=False,
            cost=CostForm.MONEY,
            result_forms=frozenset({"data", "url", "json"}),
            input_forms=frozenset({"data"} if route is not None and route.files else {"url", "data"}),
            max_inline_bytes=FORM_FILE_CHARACTERS,
        )

    def judge(self, status: int, message: str) -> type[ProviderFailure] | None:
        """403 is a key without rights, or an account without money."""
        return WalletEmpty if status == 403 and any(word in message.lower() for word in _NO_MONEY) else None

    def cost_of(self, body: dict[str, Any]) -> Cost | None:
        usage = body.get("usage")
        return dollars(usage.get("estimated_cost")) if isinstance(usage, dict) else None

    def locate(self, call: Call, options: DeepInfraOptions, path: str) -> str:
        return f"/openai{path}"

    def submit(self, call: Call) -> HttpRequest:
        options = self.options_for(call)
        if options.route != "native":
            return super().submit(call)
        # Either would have the answer come otherwise than as this call's own.
        input = without(call.input, ("stream", "webhook"))
        return HttpRequest(
            method="POST",
            url=f"/inference/{check_name(call.name)}",
            json={"input": input} if options.cog else input,
            holds_until_end=True,
        )

    def read_submit(self, call: Call, response: HttpResponse) -> Fact:
        options = self.options_for(call)
        if options.route != "native":
            return super().read_submit(call, response)
        if not 200 <= response.status < 300:
            return read_refusal(response, judge=self.judge)
        body = self.accepted(response)
        told = body.get("inference_status")
        return _read_native(response, body, told if isinstance(told, dict) else {}, is_cog=options.cog)


def _read_native(response: HttpResponse, body: dict[str, Any], told: dict[str, Any], *, is_cog: bool) -> Fact:
    # `unknown` and 0 are what it says who has not counted.
    fields: dict[str, Any] = {"metrics": _metrics(body, told), "cost": dollars(told.get("cost"))}
    if is_cog:
        fact = read_prediction({**body, "id": None})
        if not fact.phase.is_end:
            raise malformed_submit(response, "its answer is no end of the run")
        return replace(fact, cost=fields["cost"], metrics={**fact.metrics, **fields["metrics"]})
    output = without(body, _BOOKKEEPING)
    holds_nothing = not any(value not in (None, [], {}) for key, value in output.items() if key != "seed")
    if told.get("status") == "failed":
        return ended(ModelFailed, "the run failed", **fields)
    if told.get("status") in ("queued", "running") or (holds_nothing and not told):
        raise malformed_submit(response, "its answer is no end of the run")
    flags = body.get("nsfw_content_detected")
    if isinstance(flags, list) and any(flag is True for flag in flags) and not body.get("images"):
        return ended(OutputModerated, "the pictures were withheld by a content filter", **fields)
    if holds_nothing or ("images" in output and not output["images"]):
        return ended(ModelFailed, "the answer holds nothing that was made", **fields)
    return Fact(phase=Phase.SUCCEEDED, output=output, **fields)


def _metrics(body: dict[str, Any], told: dict[str, Any]) -> dict[str, Any]:
    tokens = {"input_token_count": told.get("tokens_input"), "output_token_count": told.get("tokens_generated")}
    times = {"predict_time": told.get("runtime_ms"), "audio_duration_seconds": body.get("input_length_ms")}
    found: dict[str, Any] = {name: count for name, count in tokens.items() if type(count) is int and count > 0}
    found |= {name: spent / 1_000 for name, spent in times.items() if is_amount(spent) and spent > 0}
    if isinstance(body.get("images"), list):
        found["image_count"] = len(body["images"])
    return found
