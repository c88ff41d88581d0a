"""
OpenAI's own API: pictures, speech, transcripts, text and embeddings, all held; videos as jobs.

Answers are those of `openai_compatible`; a video is a data URI. GPT image models always answer in base64, DALL-E by
links that live an hour. Left out: batches, files, background responses, streams of pictures and sound, and callbacks:
OpenAI's Standard Webhooks are registered per project, never per request, and say no more than an id.
The videos API is deprecated (shut down on 24 September 2026) and kept as the shape that others copied. Its film is
shown to our key alone and comes in one piece, so what is larger than the driver's bound on an answer cannot be had.
There is no cancel: deleting a video is another thing.
"""

from __future__ import annotations

from typing import Literal

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
from providers._adapter import read_id
from providers._auth import Headers
from providers._openai_dialect import FORM_FILE_CHARACTERS, DialectOptions, OpenAIDialect
from providers._openai_error import refused
from providers._openai_routes import ROUTES
from providers._openai_video import ask_film, read_asked, read_film, read_started, submit_video


class OpenAIOptions(DialectOptions, kw_only=True, frozen=True):
    route: Literal[
        "chat",
        "completions",
        "images",
        "edits",
        "variations",
        "embeddings",
        "speech",
        "transcription",
        "translation",
        "videos",
    ] = "chat"


class OpenAI(OpenAIDialect[OpenAIOptions]):
    """Speaks to OpenAI. That a closed connection stops anything, or costs nothing, is promised nowhere."""

    adapter = "openai"
    base_url = "https://api.openai.com/v1"
    auth = (
        Headers(
            {
                "authorization": "Bearer {token}",
                "openai-organization": "{organization}",
                "openai-project": "{project}",
            },
            optional=("organization", "project"),
            token="OPENAI_API_KEY",  # noqa: S106 - the name of a variable
            organization="OPENAI_ORG_ID",
            project="OPENAI_PROJECT_ID",
        ),
    )
    options_type = OpenAIOptions

    def describe(self, options: OpenAIOptions) -> Capabilities:
        makes_form = options.route == "videos" or bool(ROUTES[options.route].files)
        return Capabilities(
            modes=frozenset({"sync", "stream", "queue"}),
            cancel=Cancel.NONE,
            callbacks=Callbacks.NONE,
            cost=CostForm.UNITS,
            result_forms=frozenset({"data", "url", "json"}),
            result_lifetime_seconds=3600,  # of the URLs of pictures
            min_poll_seconds=2.0,
            input_forms=frozenset({"data"} if makes_form else {"url", "data"}),
            max_inline_bytes=FORM_FILE_CHARACTERS,
            result_hosts=("oaidalleapiprodscus.blob.core.windows.net",),
        )

    def submit(self, call: Call) -> HttpRequest:
        if self.options_for(call).route != "videos":
            return super().submit(call)
        return submit_video(call, "/videos")

    def read_submit(self, call: Call, response: HttpResponse) -> Fact:
        if self.options_for(call).route != "videos":
            return super().read_submit(call, response)
        if not 200 <= response.status < 300:
            raise refused(response, judge=self.judge, outlives_its_call=True)
        return read_started(response, self.accepted(response), also={})

    def poll(self, handle: dict[str, str]) -> HttpRequest | None:
        id = read_id(handle)
        return None if id is None else HttpRequest(method="GET", url=f"/videos/{id}")

    def read_poll(self, handle: dict[str, str], response: HttpResponse) -> Fact | Ask:
        if handle.get("step") == "content":
            return read_film(handle, response)
        fact = read_asked(response, self.polled(response), handle)
        id = (fact.handle or {})["id"]
        if fact.phase is not Phase.SUCCEEDED or id != handle.get("id"):
            return fact
        return ask_film(fact, f"/videos/{id}/content")
