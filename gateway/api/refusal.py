"""The refusals only an HTTP server has, beside those of the contract. Not their bodies: `problems` writes those."""

from __future__ import annotations

from typing import ClassVar

from gateway.contract.errors import InputInvalid, InvalidField, NotFound, RequestRefused

NOT_FOUND = "The requested resource could not be found."


class Malformed(RequestRefused):
    """The body is not what its content type says."""

    title: ClassVar[str] = "Malformed body"


class MethodMissing(RequestRefused):
    """The path is there and does not take this method."""

    status: ClassVar[int] = 405
    title: ClassVar[str] = "Method not allowed"

    def __init__(self, message: str, *, allow: str) -> None:
        super().__init__(message)
        self.allow = allow


class MediaTypeWrong(RequestRefused):
    """The body's content type is not one we read here."""

    status: ClassVar[int] = 415
    title: ClassVar[str] = "Unsupported media type"


class BodyTimedOut(RequestRefused):
    """The body did not arrive in its time."""

    status: ClassVar[int] = 408
    title: ClassVar[str] = "Request timed out"


class VersionInvalid(RequestRefused):
    """The version does not exist, or not for this caller."""

    status: ClassVar[int] = 422
    title: ClassVar[str] = "Invalid version or not permitted"

    def __init__(self) -> None:
        super().__init__("The specified version does not exist (or perhaps you don't have permission to use it?)")


class Busy(RequestRefused):
    """Draining, or as many predictions open as may be."""

    status: ClassVar[int] = 503
    title: ClassVar[str] = "Service unavailable"


def invalid(type: str, field: str, description: str) -> InputInvalid:
    """A 422 of one line."""
    return InputInvalid((InvalidField(type=type, field=field, description=description),))


def missing() -> NotFound:
    return NotFound(NOT_FOUND)
