"""
The many servers that speak like OpenAI: vLLM, llama.cpp, LocalAI, SGLang, TGI, Ollama and hosted ones.

Everything is synchronous: no job outlives its call. Not their files, batches, videos or background responses, not
streams of pictures or sound, and no server's further paths (rerank, tokenize, LocalAI's own).
Answers: text as a list of its chunks, pictures as a list of URLs and data URIs, speech as one data URI, a transcript as
the object it came as (text alone where `response_format` asks for text or subtitles), embeddings as numbers.
Medium: what these servers refuse, and how, is read from their sources; no two agree on the shape of an error.
"""

from __future__ import annotations

from typing import Literal

from gateway.contract.provider import Callbacks, Cancel, Capabilities, CostForm
from providers._auth import bearer
from providers._openai_dialect import FORM_FILE_CHARACTERS, DialectOptions, OpenAIDialect
from providers._openai_routes import ROUTES


class OpenAICompatibleOptions(DialectOptions, kw_only=True, frozen=True):
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
    ] = "chat"


class OpenAICompatible(OpenAIDialect[OpenAICompatibleOptions]):
    """Speaks to one server of the dialect. Closing the connection is the only way to stop it."""

    adapter = "openai_compatible"
    base_url = "http://127.0.0.1:8000/v1"  # vLLM's own; llama.cpp and LocalAI listen on 8080
    auth = (bearer(),)  # most servers ask for nothing
    options_type = OpenAICompatibleOptions

    def describe(self, options: OpenAICompatibleOptions) -> Capabilities:
        return Capabilities(
            modes=frozenset({"sync", "stream"}),
            cancel=Cancel.DISCONNECT,
            callbacks=Callbacks.NONE,
            pollable=False,
            cost=CostForm.UNITS,
            result_forms=frozenset({"data", "url", "json"}),
            result_lifetime_seconds=3600,  # of the URLs of pictures
            input_forms=frozenset({"data"} if ROUTES[options.route].files else {"url", "data"}),
            max_inline_bytes=FORM_FILE_CHARACTERS,
        )
