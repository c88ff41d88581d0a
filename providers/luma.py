"""
Luma, both APIs: Dream Machine, and the newer one for agents. Not upscaling of or sound for what they made before,
nor deleting it, which stops nothing.

Thin: Dream Machine tells a failure in words alone, so that a filter's no is not told from a broken model, and an empty
wallet only where a 400 speaks of credits; how long its files are kept is not stated, and their host is taken from third
parties. No job's cost is told. The agents API takes bytes inline too, in a form of its own: here it is given URLs.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, Literal

from gateway.contract.errors import (
    InputRefused,
    InputUnfit,
    ModelFailed,
    OutputModerated,
    ProviderFailure,
    RateLimited,
    ResultLost,
    WalletEmpty,
)
from gateway.contract.fact import Fact, Phase
from gateway.contract.provider import Call, Callbacks, Capabilities, CostForm, HttpRequest, HttpResponse
from providers._adapter import Options, ended, failure_of, kind_of, read_id
from providers._auth import bearer
from providers._job import JobQueue, speaks_of_credit, urls_of, without
from providers._reading import words_of

_FAILURES: dict[str, type[ProviderFailure]] = {
    "content_moderated": OutputModerated,
    "budget_exhausted": WalletEmpty,
    "rate_limited": RateLimited,
    "output_not_found": ResultLost,
    "image_too_large": InputUnfit,
    "unsupported_format": InputUnfit,
    "corrupt_input": InputRefused,
    "invalid_request": InputRefused,
}


class LumaOptions(Options, kw_only=True, frozen=True):
    """
    `api`: which of the two; to be said of the provider, not of an offer, since they can do different things.
    `route`: Dream Machine's path below /generations, or the agents' `type`. If nothing is said the name decides:
    `photon-…` and `uni-…` make pictures, all else films.
    """

    api: Literal["dream_machine", "agents"] = "dream_machine"
    route: (
        Literal["image", "video", "video/modify", "video/reframe", "image_edit", "video_edit", "video_reframe"] | None
    ) = None


class Luma(JobQueue[LumaOptions]):
    """The offer's name is the model. Output: Dream Machine's one URL, or the agents' list of them."""

    adapter = "luma"
    base_url = "https://api.lumalabs.ai/dream-machine/v1"
    sites: Mapping[str, str] = {"agents": "https://agents.lumalabs.ai/v1"}
    auth = (bearer("LUMAAI_API_KEY"),)
    options_type = LumaOptions
    word_keys = ("state",)
    words: ClassVar[Mapping[str, Phase]] = {
        "queued": Phase.QUEUED,
        "dreaming": Phase.RUNNING,
        "processing": Phase.RUNNING,
        "completed": Phase.SUCCEEDED,
        "failed": Phase.FAILED,
    }

    def describe(self, options: LumaOptions) -> Capabilities:
        is_newer = options.api == "agents"
        return Capabilities(
            modes=frozenset({"queue"}),
            callbacks=Callbacks.NONE if is_newer else Callbacks.UNSIGNED,
            cost=CostForm.NONE,
            result_lifetime_seconds=3600 if is_newer else None,
            min_poll_seconds=1.0,
            input_forms=frozenset({"url"}),
            result_hosts=("storage.cdn-luma.com",),
        )

    def submit(self, call: Call) -> HttpRequest:
        options = self.options_for(call)
        body = {**without(call.input, ("callback_url",)), "model": call.name}
        route = options.route or ("image" if call.name.startswith(("photon", "uni")) else "video")
        if options.api == "agents":
            return HttpRequest(method="POST", url="/generations", site="agents", json={"type": route, **body})
        if call.callback_url is not None:
            body["callback_url"] = call.callback_url
        return HttpRequest(method="POST", url=f"/generations/{route}", json=body)

    def keep(self, call: Call, body: Mapping[str, Any]) -> dict[str, str]:
        return {"site": "agents"} if self.options_for(call).api == "agents" else {}

    def refusal(self, response: HttpResponse) -> ProviderFailure:
        is_wallet = response.status == 400 and speaks_of_credit(words_of(response))
        return failure_of(WalletEmpty if is_wallet else kind_of(response.status), response)

    def poll(self, handle: dict[str, str]) -> HttpRequest | None:
        id = read_id(handle)
        if id is None:
            return None
        return HttpRequest(method="GET", url=f"/generations/{id}", site=handle.get("site", ""))

    def end(self, phase: Phase, handle: dict[str, str], body: dict[str, Any]) -> Fact:
        reason = body.get("failure_reason")
        if phase is Phase.FAILED or reason:
            code = body.get("failure_code")
            kind = _FAILURES.get(code, ModelFailed) if isinstance(code, str) else ModelFailed
            return ended(kind, reason if isinstance(reason, str) else str(code or ""), handle=handle)
        files, pictures = _files(body)
        if not files:
            return ended(ModelFailed, "the generation is complete, and there is no file", handle=handle)
        metrics = {"image_count": pictures} if pictures else {}
        output: Any = files if "site" in handle else files[0]
        return Fact(phase=phase, handle=handle, output=output, metrics=metrics)

    # Callbacks are not signed: the base's answer, a nudge to poll, is all they can be.


def _files(body: Mapping[str, Any]) -> tuple[list[str], int]:
    """URLs of what was made, and how many of them are pictures."""
    assets = body.get("assets")
    if isinstance(assets, dict):  # `progress_video` is there too, and is no result
        films, pictures = urls_of([assets.get("video")]), urls_of([assets.get("image")])
        return films or pictures, 0 if films else len(pictures)
    items = body.get("output")
    found = [item for item in items if isinstance(item, dict)] if isinstance(items, list) else []
    files = [(url, item.get("type")) for item in found for url in urls_of([item.get("url")])]
    return [url for url, _ in files], sum(kind == "image" for _, kind in files)
