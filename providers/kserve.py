"""
Servers of the open inference protocol, version 2, over HTTP: Triton, KServe, MLServer, OpenVINO and their kind.

An offer says in its options how its input becomes tensors; keys that it does not name are parameters. Output: an object
of the tensors by name, dimensions of one left out, files as data URIs; of Triton's `generate` the text in chunks.
Leaves out gRPC, shared memory, classification, sequences, and the loading of models.
Thin: how servers other than Triton tell their errors apart.
"""

from __future__ import annotations

import re
from typing import Any
from urllib.parse import quote as quote_path

import msgspec

from gateway.contract.errors import (
    AtCapacity,
    ConfigurationError,
    ModelFailed,
    ModelMissing,
    ProviderFailure,
)
from gateway.contract.fact import Fact
from gateway.contract.provider import (
    Call,
    Cancel,
    Capabilities,
    CostForm,
    EventReader,
    HttpRequest,
    HttpResponse,
)
from providers._adapter import (
    HttpAdapter,
    Options,
    UnexpectedStream,
    ended,
    failure_of,
    kind_of,
    malformed_submit,
)
from providers._auth import Headers, bearer
from providers._inference import (
    LENGTH,
    GeneratedText,
    read_generated,
    read_tensors,
    take_apart,
    write_tensors,
    write_text,
)
from providers._reading import Malformed, words_of
from providers._tensor import TensorSpec, Unreadable

_HEADER = re.compile(r"[A-Za-z0-9-]{1,64}|")
# Older servers say 400 to everything: their words tell these apart.
_BUSY = re.compile(r"exceeds maximum queue size|not ready|unavailable|no version is available", re.IGNORECASE)
_UNKNOWN = re.compile(r"unknown model|model .{0,80}not found|no such model", re.IGNORECASE)


class KServeOptions(Options, kw_only=True, frozen=True):
    """
    `inputs`: tensors by the input's keys. `outputs`: which are wanted; none: all. `binary`: as raw bytes, Triton's way,
    without which files and half floats cannot go. `generate`: Triton's endpoint for text. `queue_timeout`: tell Triton
    how long a request may wait. `header`: by which the operator's server wants the token, if not as a bearer's.
    """

    inputs: dict[str, TensorSpec] = msgspec.field(default_factory=dict)
    outputs: tuple[str, ...] = ()
    binary: bool = False
    generate: bool = False
    queue_timeout: bool = False
    header: str = ""


class KServe(HttpAdapter[KServeOptions]):
    """Everything is synchronous. Closing the connection is the only way to stop it."""

    adapter = "kserve"
    base_url = "http://127.0.0.1:8000"
    auth = (bearer(),)
    options_type = KServeOptions
    provider_options = frozenset({"header"})

    def __init__(self, name: str = "", options: Any = None) -> None:
        super().__init__(name, options)
        header = self.check(self._options).header
        if header:
            self.auth = (Headers({header.lower(): "{token}"}, token=""),)

    def check(self, options: Any) -> KServeOptions:
        chosen = super().check(options)
        if _HEADER.fullmatch(chosen.header) is None:
            raise ConfigurationError(f"options of adapter kserve: {chosen.header!r} is no header's name")
        return chosen

    def describe(self, options: KServeOptions) -> Capabilities:
        return Capabilities(
            modes=frozenset({"sync", "stream"}),
            cancel=Cancel.DISCONNECT,
            pollable=False,
            cost=CostForm.NONE,
            result_forms=frozenset({"json", "data"}),
            input_forms=frozenset({"data"}),
            max_inline_bytes=50_000_000,
        )

    # -- submit ------------------------------------------------------------------------------------------------------

    def submit(self, call: Call) -> HttpRequest:
        """Raises InputRefused for an input that does not fit its tensors."""
        options = self.options_for(call)
        path = f"/v2/models/{quote_path(call.name, safe='')}"
        if call.version:
            path += f"/versions/{quote_path(call.version, safe='')}"
        if options.generate:
            body = write_text(call)
            url = f"{path}/generate_stream" if call.stream else f"{path}/generate"
            return HttpRequest(method="POST", url=url, json=body, expects_stream=call.stream, holds_until_end=True)
        body, raw = write_tensors(call, options.inputs, outputs=options.outputs, binary=options.binary)
        if options.queue_timeout:  # in microseconds
            timeout = int(min(call.seconds_to_start, 86_400.0) * 1_000_000)
            body["parameters"] = {**body.get("parameters", {}), "timeout": timeout}
        if not options.binary:
            return HttpRequest(method="POST", url=f"{path}/infer", json=body, holds_until_end=True)
        head = msgspec.json.encode(body)
        return HttpRequest(
            method="POST",
            url=f"{path}/infer",
            headers={"content-type": "application/octet-stream", LENGTH: str(len(head))},
            content=head + raw,
            holds_until_end=True,
        )

    def read_submit(self, call: Call, response: HttpResponse) -> Fact:
        if not 200 <= response.status < 300:
            if response.status == 500 and words_of(response):  # the server's own word for what the model did
                return ended(ModelFailed, words_of(response))
            raise self.refusal(response)
        try:
            body, raw = take_apart(response, call.idempotency_id)
            if body.get("error"):
                return ended(ModelFailed, str(body["error"]))
            if self.options_for(call).generate:
                return read_generated([body.get("text_output")])
            return read_tensors(body, raw)
        except (Malformed, Unreadable) as error:
            raise malformed_submit(response, str(error)) from None

    def refusal(self, response: HttpResponse) -> ProviderFailure:
        words = words_of(response)
        kind = kind_of(response.status)
        if response.status == 503 or (response.status == 400 and _BUSY.search(words)):
            kind = AtCapacity
        elif response.status == 400 and _UNKNOWN.search(words):
            kind = ModelMissing
        return failure_of(kind, response)

    def read_events(self, call: Call) -> EventReader:
        return GeneratedText() if self.options_for(call).generate else UnexpectedStream()
