"""Replicate's HTTP contract as this server speaks it: headers read, objects and problems shown. Runs nothing."""

from __future__ import annotations

import re
from typing import Any

import msgspec

from gateway.contract.body import timestamp
from gateway.contract.errors import InputInvalid, InvalidField, NotFound, RequestRefused
from gateway.contract.prediction import Status
from local_backend.job import Job
from local_backend.package import Package

MAX_WAIT_SECONDS = 60
_SHOWN_CHARACTERS = 1_000

_WAIT = re.compile(r"wait(?:=(\d{1,4}))?")
_DURATION = re.compile(r"(?:(\d{1,5})h)?(?:(\d{1,6})m)?(?:(\d{1,6})s?)?")
_VERSION = re.compile(r"(?:(?P<model>[^/:\s]+/[^/:\s]+))?:?(?P<version>[0-9a-f]{64})?")


class VersionMissing(RequestRefused):
    """Replicate's answer to a version it does not have."""

    status = 422
    title = "Invalid version or not permitted"


class Busy(RequestRefused):
    """Nothing was run: the queue is full, or the work would not be done in time."""

    status = 503
    title = "At capacity"

    def __init__(self, message: str, *, retry_after_seconds: int = 1) -> None:
        super().__init__(message)
        self.retry_after_seconds = retry_after_seconds


class Unready(RequestRefused):
    """The model cannot be opened; another server may have it."""

    status = 503
    title = "Model unavailable"


class CreateBody(msgspec.Struct, kw_only=True, frozen=True):
    """What a client posts. Webhooks are taken and not sent: who posts here waits or polls."""

    input: dict[str, Any]
    version: str | None = None
    webhook: Any = None
    webhook_completed: Any = None
    webhook_events_filter: Any = None
    stream: Any = None


_KNOWN = frozenset(CreateBody.__struct_fields__)
_decode = msgspec.json.Decoder().decode


def read_create(body: bytes) -> CreateBody:
    """Raises RequestRefused for what is no JSON, InputInvalid for what is no prediction."""
    try:
        value = _decode(body)
    except (msgspec.DecodeError, RecursionError, UnicodeError):
        raise RequestRefused("The request body is not valid JSON.") from None
    if not isinstance(value, dict):
        raise InputInvalid((InvalidField(type="invalid_type", field="", description="Invalid type. Expected: object"),))
    findings = [
        InvalidField(
            type="additional_property_not_allowed", field="", description=f"Additional property {key} is not allowed"
        )
        for key in value
        if key not in _KNOWN
    ]
    if not isinstance(value.get("input"), dict):
        description = "input is required" if "input" not in value else "Invalid type. Expected: object"
        kind = "required" if "input" not in value else "invalid_type"
        findings.append(InvalidField(type=kind, field="" if kind == "required" else "input", description=description))
    if not isinstance(value.get("version"), str | None):
        findings.append(
            InvalidField(type="invalid_type", field="version", description="Invalid type. Expected: string")
        )
    if findings:
        raise InputInvalid(tuple(findings))
    return CreateBody(input=value["input"], version=value.get("version"))


def read_version(text: str) -> tuple[str | None, str | None]:
    """`owner/name`, `owner/name:hex` or `hex` → (model, version). Raises VersionMissing."""
    found = _VERSION.fullmatch(text)
    if found is None or not (found["model"] or found["version"]):
        raise version_missing()
    return found["model"], found["version"]


def version_missing() -> VersionMissing:
    return VersionMissing("The specified version does not exist (or perhaps you don't have permission to use it?)")


def read_wait(prefer: str | None) -> float | None:
    """Seconds to hold the answer, clamped to 60; None: not at all."""
    found = _WAIT.fullmatch((prefer or "").strip())
    if found is None:
        return None
    return float(min(int(found[1]), MAX_WAIT_SECONDS)) if found[1] else float(MAX_WAIT_SECONDS)


def read_cancel_after(text: str | None) -> float | None:
    """`30`, `30s`, `5m`, `1h30m45s` in seconds; None: no deadline. Raises RequestRefused."""
    if text is None:
        return None
    found = _DURATION.fullmatch(text.strip())
    if found is None or not any(found.groups()):
        raise RequestRefused("Cancel-After must be a duration such as 30, 30s, 5m or 1h30m45s.")
    hours, minutes, seconds = (int(part or 0) for part in found.groups())
    return float(min(hours * 3600 + minutes * 60 + seconds, 86_400))


def show_job(job: Job, address: str, *, as_created: bool = False) -> dict[str, Any]:
    """
    The prediction object. `as_created` shows it as it began: clients take a first answer that is not `starting` as
    final, and count output in a `starting` one as already delivered.
    """
    status = Status.STARTING if as_created else job.status
    get = f"{address}/v1/predictions/{job.id}"
    shown: dict[str, Any] = {
        "id": job.id,
        "model": job.model,
        "version": job.version,
        "input": job.input,
        "logs": "" if as_created else job.logs,
        "output": None if as_created else job.output,
        "data_removed": False,
        "error": None if as_created else job.error,
        "source": "api",
        "status": str(status),
        "created_at": timestamp(job.created_at),
        "urls": {"get": get, "cancel": f"{get}/cancel"},
    }
    if job.deadline is not None:
        shown["deadline"] = timestamp(job.deadline)
    if not as_created:
        if job.started_at is not None:
            shown["started_at"] = timestamp(job.started_at)
        if job.completed_at is not None:
            shown["completed_at"] = timestamp(job.completed_at)
            shown["metrics"] = job.metrics
    return shown


def shorten(value: Any) -> Any:
    """An input as it is echoed: long texts cut, so that a finished prediction does not hold its pictures."""
    if isinstance(value, str):
        cut = len(value) > _SHOWN_CHARACTERS
        return f"{value[:64]}… ({len(value)} characters)" if cut else value
    if isinstance(value, dict):
        return {key: shorten(one) for key, one in value.items()}
    if isinstance(value, list):
        return [shorten(one) for one in value[:32]]
    return value


def show_version(package: Package) -> dict[str, Any]:
    created_at = package.manifest.created_at
    return {
        "id": package.version,
        "created_at": timestamp(created_at) if created_at else None,
        "cog_version": "0.9.0",
        "openapi_schema": package.schema(),
    }


def show_model(package: Package) -> dict[str, Any]:
    owner, name = package.manifest.owner_and_name
    return {
        "owner": owner,
        "name": name,
        "description": package.manifest.description,
        "visibility": "private",
        "latest_version": show_version(package),
    }


def show_page(results: list[dict[str, Any]]) -> dict[str, Any]:
    return {"next": None, "previous": None, "results": results}


def show_problem(refused: RequestRefused) -> dict[str, Any]:
    """A problem body as Replicate's: `detail` always, `invalid_fields` with a 422 of the input."""
    problem: dict[str, Any] = {"detail": str(refused), "status": refused.status, "title": refused.title}
    if isinstance(refused, NotFound):
        del problem["title"]
    if isinstance(refused, InputInvalid):
        problem["invalid_fields"] = [msgspec.structs.asdict(field) for field in refused.fields]
    if isinstance(refused, Busy):
        problem["retry_after"] = refused.retry_after_seconds
    return problem
