"""
Azure AI's OpenAI models, over both of its address schemes; answers are those of `openai_compatible`.

The offer's name is a *deployment*, which says nothing of the model behind it: ops must know what it is, and costs.
Videos: Sora's jobs API (`video_jobs`) and OpenAI's videos API as Azure took it over (`videos`); a film is a data URI.
Left out: Foundry models of other makers on `services.ai.azure.com`, callbacks (none were found), streams of sound.
Thin throughout: no page of Microsoft's was at hand. Addresses and the filter's 400 are from clients' sources and widely
published errors; the jobs API from one client's code; how long links live, and whether a closed connection stops
anything, is not known.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal
from urllib.parse import quote as quote_path

from gateway.contract.errors import InputRefused, ModelFailed
from gateway.contract.fact import Fact, Phase
from gateway.contract.provider import (
    Ask,
    Call,
    Callbacks,
    Cancel,
    Capabilities,
    CostForm,
    HttpRequest,
    HttpResponse,
)
from providers._adapter import ended, read_id
from providers._auth import EntraApplication, Headers
from providers._openai_dialect import FORM_FILE_CHARACTERS, DialectOptions, OpenAIDialect
from providers._openai_error import refused
from providers._openai_routes import ROUTES
from providers._openai_video import ask_film, read_asked, read_film, read_started, submit_video

_JOBS = {"video_jobs": "/v1/video/generations/jobs", "videos": "/v1/videos"}
_NEWEST_CLASSIC = "2024-10-21"  # the last version of the classic scheme that is no preview


class AzureOptions(DialectOptions, kw_only=True, frozen=True):
    """
    `resource`: the first word of `<resource>.openai.azure.com`, if no `base_url` (up to `/openai`) is configured.
    `scheme`: "v1" names the deployment in the body, "classic" in the path. `api_version`: "v1", "preview" or a date.
    """

    route: Literal[
        "chat",
        "completions",
        "images",
        "edits",
        "embeddings",
        "speech",
        "transcription",
        "translation",
        "video_jobs",
        "videos",
    ] = "chat"
    resource: str = ""
    scheme: Literal["v1", "classic"] = "v1"
    api_version: str = ""


class Azure(OpenAIDialect[AzureOptions]):
    """Speaks to one Azure resource, with its key or as an application of Microsoft Entra."""

    adapter = "azure"
    auth = (
        Headers({"api-key": "{token}"}, token="AZURE_OPENAI_API_KEY"),  # noqa: S106 - the name of a variable
        EntraApplication(scope="https://cognitiveservices.azure.com/.default"),
    )
    options_type = AzureOptions
    provider_options = frozenset({"resource"})

    def __init__(self, name: str = "", options: Mapping[str, Any] | None = None) -> None:
        super().__init__(name, options)
        resource = self.check(self._options).resource
        self.base_url = f"https://{quote_path(resource, safe='')}.openai.azure.com/openai" if resource else ""

    def describe(self, options: AzureOptions) -> Capabilities:
        makes_form = options.route == "videos" or bool(options.route in ROUTES and ROUTES[options.route].files)
        return Capabilities(
            modes=frozenset({"sync", "stream", "queue"}),
            cancel=Cancel.NONE,
            callbacks=Callbacks.NONE,
            cost=CostForm.UNITS,
            result_forms=frozenset({"data", "url", "json"}),
            result_lifetime_seconds=3600,  # of the URLs of pictures, as OpenAI's own
            min_poll_seconds=2.0,
            input_forms=frozenset({"data"} if makes_form else {"url", "data"}),
            max_inline_bytes=FORM_FILE_CHARACTERS,
        )

    def locate(self, call: Call, options: AzureOptions, path: str) -> str:
        if options.scheme == "classic":
            deployment = quote_path(call.name, safe="")
            return f"/deployments/{deployment}{path}?api-version={_escaped(options.api_version or _NEWEST_CLASSIC)}"
        return f"/v1{path}?api-version={_escaped(options.api_version or 'v1')}"

    # -- submit ------------------------------------------------------------------------------------------------------

    def submit(self, call: Call) -> HttpRequest:
        options = self.options_for(call)
        if options.route not in _JOBS:
            return super().submit(call)
        url = f"{_JOBS[options.route]}?api-version={_job_version(options)}"
        if options.route == "videos":
            return submit_video(call, url)
        if not isinstance(call.input.get("prompt"), str):
            raise InputRefused("`prompt` is missing")
        return HttpRequest(method="POST", url=url, json={**call.input, "model": call.name})

    def read_submit(self, call: Call, response: HttpResponse) -> Fact:
        options = self.options_for(call)
        if options.route not in _JOBS:
            return super().read_submit(call, response)
        if not 200 <= response.status < 300:
            raise refused(response, outlives_its_call=True)
        also = {"api": options.route, "version": _job_version(options)}
        return read_started(response, self.accepted(response), also=also)

    # -- poll --------------------------------------------------------------------------------------------------------

    def poll(self, handle: dict[str, str]) -> HttpRequest | None:
        id, jobs = read_id(handle), _JOBS.get(handle.get("api", ""))
        if id is None or jobs is None:
            return None
        return HttpRequest(method="GET", url=f"{jobs}/{id}?api-version={handle.get('version', 'preview')}")

    def read_poll(self, handle: dict[str, str], response: HttpResponse) -> Fact | Ask:
        if handle.get("step") == "content":
            return read_film(handle, response)
        body = self.polled(response)
        fact = read_asked(response, body, handle)
        told = fact.handle or {}
        if fact.phase is not Phase.SUCCEEDED or told["id"] != handle.get("id"):
            return fact
        version = handle.get("version", "preview")
        if handle.get("api") == "videos":
            return ask_film(fact, f"/v1/videos/{told['id']}/content?api-version={version}")
        made = body.get("generations")
        made = made if isinstance(made, list) else []
        film = next((id for item in made if isinstance(item, dict) and (id := read_id(item))), None)
        if film is None:
            return ended(ModelFailed, "the job is done and made no film", handle=told, metrics=fact.metrics)
        return ask_film(fact, f"/v1/video/generations/{film}/content/video?api-version={version}")


def _escaped(version: str) -> str:
    return quote_path(version, safe="")


def _job_version(options: AzureOptions) -> str:
    # The classic scheme has no videos, and its dated versions none of these addresses.
    return _escaped(options.api_version if options.api_version and options.scheme == "v1" else "preview")
