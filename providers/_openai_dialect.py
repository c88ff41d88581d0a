"""What adapters of OpenAI's dialect are made from: its synchronous endpoints. Not jobs, nor a vendor's own ways."""

from __future__ import annotations

from typing import Any, Generic, TypeVar

from msgspec.structs import replace

from gateway.contract.errors import ProviderFailure
from gateway.contract.fact import Fact
from gateway.contract.money import Cost
from gateway.contract.provider import Call, EventReader, HttpRequest, HttpResponse
from providers._adapter import HttpAdapter, Options, UnexpectedStream, failure_of, malformed_submit
from providers._openai_chat import TextStream
from providers._openai_error import classify, failed, find_error, read_refusal
from providers._openai_routes import ROUTES, Route, write_form
from providers._reading import Malformed, read_json

# Files sent as a form are limited to 25 MB; as they stand in the input, in base64, they are longer by a third.
FORM_FILE_CHARACTERS = 34_000_000
# Those of ours alone to say: what would make the answer something else than we read.
_OURS = ("stream", "stream_options", "stream_format", "partial_images")


class DialectOptions(Options, kw_only=True, frozen=True):
    """
    `route`: which endpoint the offer is. `single`: a route of pictures gives the first one alone, not a list.
    `stream_usage`: ask for token counts in streams; some older servers refuse the very question.
    """

    route: str = "chat"
    single: bool = False
    stream_usage: bool = True


AnyDialect = TypeVar("AnyDialect", bound=DialectOptions)


class OpenAIDialect(HttpAdapter[AnyDialect], Generic[AnyDialect]):
    """Speaks to one server of the dialect. Its adapters say where each route is, and what its refusals mean."""

    def judge(self, status: int, message: str) -> type[ProviderFailure] | None:
        """What this vendor means by a status and its words, where it is not what the dialect means."""
        return None

    def cost_of(self, body: dict[str, Any]) -> Cost | None:
        """What an answer, or a chunk of a stream, says of its price in money. The dialect says nothing."""
        return None

    def locate(self, call: Call, options: AnyDialect, path: str) -> str:
        """Where `path` of the dialect is. A body names the model by itself."""
        return path

    def submit(self, call: Call) -> HttpRequest:
        """Raises InputRefused if the input lacks what its route cannot do without."""
        options = self.options_for(call)
        route = ROUTES[options.route]
        body = {key: value for key, value in route.write(call.input).items() if key not in _OURS}
        body["model"] = call.name
        url = self.locate(call, options, route.path)
        if route.files:
            return write_form(url, body, route.files, holds_until_end=True)
        # Calls of tools arrive in crumbs that only make sense whole.
        streams = call.stream and route.is_streamed and not body.get("tools")
        if streams:
            body["stream"] = True
            if options.stream_usage:
                body["stream_options"] = {"include_usage": True}
        return HttpRequest(
            method="POST",
            url=url,
            headers={"accept": "text/event-stream"} if streams else {},
            json=body,
            expects_stream=streams,
            holds_until_end=True,
        )

    def read_submit(self, call: Call, response: HttpResponse) -> Fact:
        options = self.options_for(call)
        return self.read_route(call, options, response)

    def read_route(self, call: Call, options: AnyDialect, response: HttpResponse) -> Fact:
        """What the answer of the options' route says."""
        if not 200 <= response.status < 300:
            return read_refusal(response, judge=self.judge)
        route = ROUTES[options.route]
        fact = self._read(route, call.input, response)
        if fact is None:
            raise malformed_submit(response, f"its answer is none of route {options.route!r}")
        if options.single and route.makes_images and isinstance(fact.output, list):
            return replace(fact, output=fact.output[0])
        return fact

    def _read(self, route: Route, input: dict[str, Any], response: HttpResponse) -> Fact | None:
        raw = route.read_raw(input, response) if route.read_raw is not None else None
        if raw is not None:
            return raw
        try:
            body = read_json(response.body)
        except Malformed as malformed:
            raise malformed_submit(response, str(malformed)) from None
        error = find_error(body)
        if error is not None:
            return failed(failure_of(classify(error, response.status), response, message=error.message))
        fact = route.read(input, body)
        cost = self.cost_of(body) if isinstance(body, dict) else None
        return fact if fact is None or cost is None else replace(fact, cost=cost)

    def read_events(self, call: Call) -> EventReader:
        route = ROUTES.get(self.options_for(call).route)
        return TextStream(self.cost_of) if route is not None and route.is_streamed else UnexpectedStream()
