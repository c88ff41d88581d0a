"""From a posted body to the contract's Request: decoded, checked by the model's schema, cleaned. Stores nothing."""

from __future__ import annotations

from typing import Any
from urllib.parse import urlsplit

import msgspec

from gateway.api import header
from gateway.api.context import Context
from gateway.api.exchange import Exchange
from gateway.api.keyword import MOST_ERRORS
from gateway.api.refusal import Malformed, MediaTypeWrong, VersionInvalid, invalid, missing
from gateway.api.validation import InputSchema, compile_schema, speaks_of_files
from gateway.contract.body import REDACTED
from gateway.contract.errors import AddressForbidden, InputInvalid, InvalidField
from gateway.contract.model import Model, Version
from gateway.contract.prediction import Request, WebhookEvent
from gateway.contract.trace import read_traceparent

MOST_DEPTH = 100
MOST_URL_CHARACTERS = 2_048


class _Body(msgspec.Struct, forbid_unknown_fields=True):
    """What POST takes at the top level. `stream` is accepted and says nothing: every prediction can be streamed."""

    input: dict[str, Any]
    version: str | msgspec.UnsetType | None = msgspec.UNSET
    webhook: str | None = None
    webhook_events_filter: tuple[WebhookEvent, ...] | None = None
    stream: bool | None = None
    webhook_completed: str | None = None


class Fitting(msgspec.Struct, frozen=True):
    """What is known of one version's schema, kept because compiling it is not free."""

    document: dict[str, Any]
    input: InputSchema
    has_files: bool


_decode = msgspec.json.Decoder(_Body).decode
_fittings: dict[tuple[str, str], Fitting] = {}

_FIELDS: dict[str, Any] = {
    "input": {"type": "object"},
    "webhook": {"type": "string", "nullable": True},
    "webhook_events_filter": {
        "type": "array",
        "nullable": True,
        "items": {"type": "string", "enum": [event.value for event in WebhookEvent]},
    },
    "stream": {"type": "boolean", "nullable": True},
    "webhook_completed": {"type": "string", "nullable": True},
}
# The slow words for what the fast decoder refused.
_explain_by_model = compile_schema(
    {"type": "object", "properties": _FIELDS, "required": ["input"], "additionalProperties": False}
)
_explain_by_version = compile_schema(
    {
        "type": "object",
        "properties": {"version": {"type": "string"}, **_FIELDS},
        "required": ["version", "input"],
        "additionalProperties": False,
    }
)


def read_request(exchange: Exchange, raw: bytes, *, fingerprint: str) -> Request:
    """
    The Request that `raw` asks for on this path.

    Raises Malformed, MediaTypeWrong, InputInvalid, VersionInvalid, NotFound, AddressForbidden.
    """
    context = exchange.context
    slug = f"{exchange.params['owner']}/{exchange.params['name']}" if "owner" in exchange.params else None
    body = _read_body(exchange, raw, by_version=slug is None)
    if slug is not None:
        model = context.models.get(slug)
        if model is None:
            raise missing()
        version, is_pinned = _version(model, model.default_version), False
    else:
        model, version, is_pinned = _resolve(context, str(body.version))
    fitting = _fitting(model, version)
    given = _without_token(body.input, exchange.token, raw)
    input, errors = fitting.input.fit(given)
    errors = errors or _forbidden_files(context, input, fitting.input.files or ())
    if errors:
        raise InputInvalid(errors)
    webhook, events = _webhook(context, body)
    return Request(
        model=model.slug,
        version=version.id,
        is_pinned=is_pinned,
        input=input,
        secret=fitting.input.secret,
        file_keys=fitting.input.files,
        webhook=webhook,
        webhook_events=events,
        policy=_policy(exchange),
        labels=header.labels(exchange.header(b"turnout-labels")),
        wants_deadline=exchange.header(b"cancel-after") is not None,
        file_output=fitting.has_files,
        fingerprint=fingerprint,
        trace=read_traceparent(exchange.header(b"traceparent")),
    )


def _read_body(exchange: Exchange, raw: bytes, *, by_version: bool) -> _Body:
    refuse_other_than_json(exchange)
    try:
        body = _decode(raw)
    except msgspec.ValidationError:
        raise InputInvalid(_explained(raw, by_version=by_version)) from None
    except msgspec.DecodeError as error:
        raise Malformed(f"The body is not valid JSON: {error}") from None
    if by_version != isinstance(body.version, str) or (body.version is None):
        raise InputInvalid(_explained(raw, by_version=by_version))
    # Brackets inside of texts are counted too: then the walk says it was none.
    if raw.count(b"{") + raw.count(b"[") > MOST_DEPTH and _is_deep(body.input):
        raise Malformed(f"The body is nested more than {MOST_DEPTH} levels deep")
    return body


def refuse_other_than_json(exchange: Exchange) -> None:
    kind = (exchange.header(b"content-type") or "application/json").partition(";")[0].strip().lower()
    if kind != "application/json" and not kind.endswith("+json"):
        raise MediaTypeWrong(f'The body must be sent as "application/json", not as "{kind[:100]}"')


def _explained(raw: bytes, *, by_version: bool) -> tuple[InvalidField, ...]:
    errors: list[InvalidField] = []
    try:
        body = msgspec.json.decode(raw)
    except msgspec.ValidationError as error:  # a number no machine can hold
        raise Malformed(f"The body is not valid JSON: {error}") from None
    (_explain_by_version if by_version else _explain_by_model)(body, "", errors)
    return tuple(errors) or (InvalidField(type="invalid", field="", description="The body cannot be read"),)


def _is_deep(value: Any) -> bool:
    level: list[Any] = [value]
    for _ in range(MOST_DEPTH):
        level = [
            inner
            for outer in level
            for inner in (outer.values() if isinstance(outer, dict) else outer)
            if isinstance(inner, (dict, list))
        ]
        if not level:
            return False
    return True


def _resolve(context: Context, text: str) -> tuple[Model, Version, bool]:
    """`owner/name`, `owner/name:<64 hex>` or `<64 hex>`. Raises VersionInvalid."""
    name, colon, id = text.partition(":")
    if "/" not in name:
        name, colon, id = "", ":", text
    model = context.models.get(name) if name else context.models.by_version(id)
    if model is None:
        raise VersionInvalid
    if not colon:
        return model, _version(model, model.default_version), False
    return model, _version(model, id), True


def _version(model: Model, id: str) -> Version:
    for version in model.versions:
        if version.id == id:
            return version
    raise VersionInvalid


def _fitting(model: Model, version: Version) -> Fitting:
    key = (model.slug, version.id)
    found = _fittings.get(key)
    if found is None or found.document is not version.schema:  # the configuration was read anew
        found = Fitting(version.schema, InputSchema(version.schema), speaks_of_files(version.schema))
        _fittings[key] = found
    return found


def _without_token(input: dict[str, Any], token: str, raw: bytes) -> dict[str, Any]:
    """npm's client, when it inlines files, posts itself with the token in it: that is never kept or passed on."""
    if not token or token.encode("latin-1", "replace") not in raw:
        return input

    def clean(value: Any) -> Any:
        if isinstance(value, str):
            return value.replace(token, REDACTED) if token in value else value
        if isinstance(value, list):
            return [clean(one) for one in value]
        if isinstance(value, dict):
            return {key.replace(token, REDACTED): clean(one) for key, one in value.items()}
        return value

    cleaned: dict[str, Any] = clean(input)
    return cleaned


def _forbidden_files(context: Context, input: dict[str, Any], keys: tuple[str, ...]) -> tuple[InvalidField, ...]:
    """URLs among the files of an input that `check_input_url` refuses. Our own files and artifacts always pass."""
    check = context.check_input_url
    if check is None:
        return ()
    own = (f"{context.base}/v1/files/", f"{context.base}/artifacts/")
    errors: list[InvalidField] = []
    open_ = [(f"input.{key}", input[key]) for key in reversed(keys) if key in input]
    while open_:
        field, value = open_.pop()
        if isinstance(value, list):
            open_.extend((f"{field}.{index}", value[index]) for index in reversed(range(len(value))))
        elif isinstance(value, str) and not value.startswith(("data:", *own)):
            try:
                check(value)
            except AddressForbidden as error:
                errors.append(InvalidField(type="format", field=field, description=str(error)))
                if len(errors) == MOST_ERRORS:
                    break
    return tuple(errors)


def _webhook(context: Context, body: _Body) -> tuple[str | None, tuple[WebhookEvent, ...]]:
    events = body.webhook_events_filter
    if body.webhook is None and body.webhook_completed is not None:
        _check_webhook(context, body.webhook_completed, field="webhook_completed")
        return body.webhook_completed, (WebhookEvent.COMPLETED,)
    if body.webhook is not None:
        _check_webhook(context, body.webhook, field="webhook")
    if events is None:
        return body.webhook, (WebhookEvent.OUTPUT, WebhookEvent.COMPLETED)
    return body.webhook, tuple(dict.fromkeys(events))


def _check_webhook(context: Context, url: str, *, field: str) -> None:
    if len(url) > MOST_URL_CHARACTERS:
        raise invalid("string_lte", field, f"String length must be less than or equal to {MOST_URL_CHARACTERS}")
    try:
        parts = urlsplit(url)
        has_host = bool(parts.hostname) and (parts.port is None or parts.port > 0)
    except ValueError:
        has_host = False
    if not has_host or any(character <= " " or character == "\x7f" for character in url):
        raise invalid("format", field, "Does not match format 'uri'")
    if parts.scheme != "https" and not (context.allow_http_webhooks and parts.scheme == "http"):
        raise invalid("format", field, "Must be an HTTPS URL")
    context.check_url(url)


def _policy(exchange: Exchange) -> str | None:
    asked = header.policy(exchange.header(b"turnout-policy"))
    if asked is None:
        return exchange.key.policy if exchange.key is not None else None
    known = exchange.context.policies
    if known is not None and asked not in known():
        raise invalid("enum", "Turnout-Policy", f'There is no policy "{asked}"')
    return asked
