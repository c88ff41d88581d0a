"""
ElevenLabs: speech, sounds, music, transcription and dubbing. Not its WebSockets, timestamps, voices and history.

Its webhooks are set up per workspace, and told of no job beforehand which address is ours: they are left out, and so is
transcription by webhook. Thin: limits of files are not stated; the word for text against its policy, and the duration
beside a transcription, are taken from third parties.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, Literal
from urllib.parse import quote as quote_path

from gateway.contract.errors import InputRefused, JobFailed, ModelFailed, PollFailed, ResultLost
from gateway.contract.fact import Fact, Phase
from gateway.contract.provider import Ask, Call, Cancel, Capabilities, CostForm, HttpRequest, HttpResponse
from providers._adapter import Options, ended, failure_of, malformed_submit, read_amount, read_id
from providers._auth import Headers
from providers._content import UNTYPED, content_type_of, inline
from providers._elevenlabs_error import read_refusal
from providers._form import form_request
from providers._job import JobQueue

_PATHS = {"sound": "/sound-generation", "music": "/music"}


class ElevenLabsOptions(Options, kw_only=True, frozen=True):
    """`route`: which endpoint the offer is. `voice`: who speaks, where the input has no `voice_id`."""

    route: Literal["speech", "sound", "music", "transcription", "dubbing"] = "speech"
    voice: str = ""


class ElevenLabs(JobQueue[ElevenLabsOptions]):
    """
    The offer's name is the model (`model_id`); dubbing takes none.

    Output: the sound, or the dubbed file, as a data URI; a transcription as the object it is. What `character-cost`
    tells, in credits, is among the metrics.
    """

    adapter = "elevenlabs"
    base_url = "https://api.elevenlabs.io/v1"
    auth = (Headers({"xi-api-key": "{token}"}, token="ELEVENLABS_API_KEY"),)  # noqa: S106 - the name of a variable
    options_type = ElevenLabsOptions
    id_key = "dubbing_id"
    words: ClassVar[Mapping[str, Phase]] = {"dubbing": Phase.RUNNING, "dubbed": Phase.SUCCEEDED, "failed": Phase.FAILED}

    def describe(self, options: ElevenLabsOptions) -> Capabilities:
        return Capabilities(
            modes=frozenset({"sync", "queue"}),
            # A dubbing goes on, and is billed, whoever hangs up.
            cancel=Cancel.NONE if options.route == "dubbing" else Cancel.DISCONNECT,
            cost=CostForm.UNITS,
            result_forms=frozenset({"data", "json"}),
            min_poll_seconds=2.0,
            input_forms=frozenset({"data"}),
            max_inline_bytes=50_000_000,
        )

    # -- submit ------------------------------------------------------------------------------------------------------

    def submit(self, call: Call) -> HttpRequest:
        """Raises InputRefused for an input without the voice, or the language, that its path is made of."""
        options = self.options_for(call)
        match options.route:
            case "transcription":
                return form_request("/speech-to-text", _body(call, "webhook"), holds_until_end=True)
            case "dubbing":
                if read_id(call.input, "target_lang") is None:
                    raise InputRefused("`target_lang` is missing, or is no language")
                return form_request("/dubbing", call.input)
            case "speech":
                voice = read_id({"voice_id": options.voice, **call.input}, "voice_id")
                if voice is None:
                    raise InputRefused("`voice_id` is missing, or is no id of a voice")
                path = f"/text-to-speech/{voice}"
            case route:
                path = _PATHS[route]
        format = call.input.get("output_format")
        query = f"?output_format={quote_path(format, safe='')}" if isinstance(format, str) else ""
        body = _body(call, "voice_id", "output_format")
        return HttpRequest(method="POST", url=f"{path}{query}", json=body, holds_until_end=True)

    def read_submit(self, call: Call, response: HttpResponse) -> Fact:
        route = self.options_for(call).route
        if not 200 <= response.status < 300:
            failure = read_refusal(response, is_job=route == "dubbing")
            if isinstance(failure, JobFailed):
                return Fact(phase=Phase.FAILED, failure=failure.failure)
            raise failure
        if route == "dubbing":
            return super().read_submit(call, response)
        if route == "transcription":
            return self._read_text(response)
        if not _is_media(response):
            raise malformed_submit(response, "its answer is not sound")
        if not response.body:
            return ended(ModelFailed, "the answer holds no sound")
        output = inline(response, otherwise="audio/mpeg")
        return Fact(phase=Phase.SUCCEEDED, output=output, metrics=_metrics(response))

    def _read_text(self, response: HttpResponse) -> Fact:
        body = self.accepted(response)
        if not isinstance(body.get("text"), str) and not isinstance(body.get("transcripts"), list):
            raise malformed_submit(response, "its answer is no transcription")
        metrics = _metrics(response)
        seconds = read_amount(body.get("audio_duration_secs"))
        if seconds is not None:
            metrics["audio_duration_seconds"] = seconds
        return Fact(phase=Phase.SUCCEEDED, output=body, metrics=metrics)

    # -- dubbing, the one job ----------------------------------------------------------------------------------------

    def keep(self, call: Call, body: Mapping[str, Any]) -> dict[str, str]:
        return {"language": call.input["target_lang"]}

    def poll(self, handle: dict[str, str]) -> HttpRequest | None:
        id = read_id(handle)
        return None if id is None else HttpRequest(method="GET", url=f"/dubbing/{id}")

    def read_poll(self, handle: dict[str, str], response: HttpResponse) -> Fact | Ask:
        if handle.get("step") == "audio":
            return self._read_dub(handle, response)
        fact = self.told(*self.asked(handle, response))
        told = fact.handle or {}
        if fact.phase is not Phase.SUCCEEDED:
            return fact
        if told.get("id") != handle.get("id"):
            return Fact(phase=Phase.RUNNING, handle=told)  # of another job, whose sound is not ours to fetch
        # Its file is shown to our key alone, so it is fetched here.
        request = HttpRequest(method="GET", url=f"/dubbing/{told['id']}/audio/{told.get('language', '')}")
        return Ask(request=request, handle={**told, "step": "audio"})

    def _read_dub(self, handle: dict[str, str], response: HttpResponse) -> Fact:
        own = {key: value for key, value in handle.items() if key != "step"}
        if response.status in (404, 410):
            return ended(ResultLost, "the dubbing is done, and its file is gone", handle=own)
        if response.status != 200 or not _is_media(response):
            raise failure_of(PollFailed, response)
        if not response.body:
            return ended(ResultLost, "the dubbing is done, and its file is empty", handle=own)
        return Fact(phase=Phase.SUCCEEDED, handle=own, output=inline(response, otherwise="audio/mpeg"))

    def end(self, phase: Phase, handle: dict[str, str], body: dict[str, Any]) -> Fact:
        error = body.get("error")
        if phase is Phase.FAILED or error:
            return ended(ModelFailed, error if isinstance(error, str) else "", handle=handle)
        return Fact(phase=phase, handle=handle)


def _is_media(response: HttpResponse) -> bool:
    kind = content_type_of(response)
    return kind in ("", UNTYPED) or kind.startswith(("audio/", "video/"))


def _body(call: Call, *without: str) -> dict[str, Any]:
    body = {name: value for name, value in call.input.items() if name not in without}
    return {**body, "model_id": call.name}


def _metrics(response: HttpResponse) -> dict[str, Any]:
    """Credits, as the answer's head tells them."""
    credits = read_amount(response.headers.get("character-cost"))
    return {} if credits is None else {"billable_units": credits}
