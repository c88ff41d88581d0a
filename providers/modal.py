"""
Modal's web functions: each on a host of its own, which is the provider's `base_url`; paths and bodies are its owner's.

What runs longer than 150 s is answered by 303, and asked for under the address given there, as often as one likes,
without running again; so are jobs of a queue that the function's owner wrote (option `result_path`). A poll is held for
150 s too: with `poll_seconds = 160` each is answered. Output is what the function returns, as JSON, text or a file.
Leaves out streams. Thin: what a function that ran out of time is answered with; whether letting go of a held poll
disturbs it (it should not); the words of a spend limit (from users' reports).
"""

from __future__ import annotations

import re
from typing import Any, Literal
from urllib.parse import parse_qs, urlencode, urlsplit
from urllib.parse import quote as quote_path

import msgspec

from gateway.contract.errors import (
    InputRefused,
    JobLost,
    ModelFailed,
    ModelMissing,
    PollFailed,
    ProviderFailure,
    WalletEmpty,
)
from gateway.contract.fact import Fact, Phase
from gateway.contract.provider import Call, Capabilities, CostForm, HttpRequest, HttpResponse
from providers._adapter import HttpAdapter, Options, ended, failure_of, kind_of, malformed_submit, read_id
from providers._answer import read_answer
from providers._auth import Headers
from providers._form import form_request
from providers._reading import words_of

_CALL = "__modal_function_call_id"
_CALL_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,127}")
_SPENT = re.compile(r"spend limit|billing", re.IGNORECASE)


class ModalOptions(Options, kw_only=True, frozen=True):
    """
    `path`: of the function, `{name}` being the offer's. `method`, `body`: how it takes its input. `result_path`: its
    owner's own queue, `{id}` being what the submit's answer has under `id_key`: 202 while it runs, 200 when it is done.
    """

    path: str = "/"
    method: Literal["POST", "PUT", "GET"] = "POST"
    body: Literal["json", "form", "query"] = "json"
    result_path: str = ""
    id_key: str = "call_id"


class Modal(HttpAdapter[ModalOptions]):
    """Redirects are never followed by themselves: the address of a 303 is the job."""

    adapter = "modal"
    auth = (Headers({"modal-key": "{key}", "modal-secret": "{secret}"}, key="", secret=""),)
    options_type = ModalOptions

    def describe(self, options: ModalOptions) -> Capabilities:
        return Capabilities(
            modes=frozenset({"sync", "queue"}),
            cost=CostForm.NONE,
            result_forms=frozenset({"json", "data", "url"}),
            result_lifetime_seconds=7 * 86_400,  # from third parties
            min_poll_seconds=1,
            max_inline_bytes=50_000_000,
        )

    # -- submit ------------------------------------------------------------------------------------------------------

    def submit(self, call: Call) -> HttpRequest:
        options = self.options_for(call)
        path, is_job = _path(call, options), bool(options.result_path)
        if options.body == "form":
            return form_request(path, call.input, holds_until_end=not is_job)
        if options.body == "query":
            said = {key: _text(value) for key, value in call.input.items() if value is not None}
            query = urlencode(said, errors="replace")
            return HttpRequest(method=options.method, url=f"{path}?{query}", holds_until_end=not is_job)
        return HttpRequest(method=options.method, url=path, json=call.input, holds_until_end=not is_job)

    def read_submit(self, call: Call, response: HttpResponse) -> Fact:
        options = self.options_for(call)
        if response.status == 303:
            handle = _redirected(response, _path(call, options))
            if handle is None:
                raise malformed_submit(response, "it redirects to what is no call of a function")
            return Fact(phase=Phase.RUNNING, handle=handle)
        if not 200 <= response.status < 300:
            if response.status == 500:  # the function raised; what is before it says 502 to 504
                return ended(ModelFailed, words_of(response) or "the function raised")
            raise self.refusal(response)
        if not options.result_path:
            return read_answer(response)
        id = read_id(self.accepted(response), options.id_key)
        if id is None:
            raise malformed_submit(response, "its answer has no usable id")
        return Fact(phase=Phase.QUEUED, handle={"id": id, "url": options.result_path.replace("{id}", id)})

    def refusal(self, response: HttpResponse) -> ProviderFailure:
        kind = kind_of(response.status)
        if response.status in (402, 403, 404, 429) and _SPENT.search(words_of(response)):
            kind = WalletEmpty
        elif response.status in (302, 307, 308):
            kind = ModelMissing  # of the function's own, and no way of Modal's
        return failure_of(kind, response)

    # -- poll --------------------------------------------------------------------------------------------------------

    def poll(self, handle: dict[str, str]) -> HttpRequest | None:
        url = handle.get("url")
        return HttpRequest(method="GET", url=url, holds_until_end=_CALL in url) if url else None

    def read_poll(self, handle: dict[str, str], response: HttpResponse) -> Fact:
        status = response.status
        if status == 303:
            again = _redirected(response, handle.get("url", "").partition("?")[0])
            if again is None:
                raise PollFailed("it redirects to what is no call of a function", status=status)
            return Fact(phase=Phase.RUNNING, handle={**handle, **again})
        if status == 202:
            return Fact(phase=Phase.RUNNING, handle=handle)
        if 200 <= status < 300:
            return read_answer(response, handle=handle, otherwise=PollFailed)
        if status == 500:
            return ended(ModelFailed, words_of(response) or "the function raised", handle=handle)
        if status in (400, 422):
            return ended(InputRefused, words_of(response), handle=handle)
        raise failure_of(JobLost if status in (404, 410) else PollFailed, response)


def _path(call: Call, options: ModalOptions) -> str:
    return "/" + options.path.replace("{name}", quote_path(call.name, safe="/")).lstrip("/")


def _redirected(response: HttpResponse, path: str) -> dict[str, str] | None:
    """The call's id, and where it may be asked for: relative to where we asked, or on the function's host."""
    place = response.headers.get("location", "").strip()
    try:
        ids = parse_qs(urlsplit(place).query).get(_CALL, [])
    except ValueError:
        return None
    if len(ids) != 1 or _CALL_ID.fullmatch(ids[0]) is None:
        return None
    return {"id": ids[0], "url": f"{path}{place}" if place.startswith("?") else place}


def _text(value: Any) -> str:
    return value if isinstance(value, str) else msgspec.json.encode(value).decode()
