"""Server-sent events out of bytes, as the WHATWG standard parses them. Not what an event means."""

from __future__ import annotations

import codecs

from gateway.contract.provider import ServerSentEvent


class EventTooLarge(ValueError):
    """One event grew over the limit."""


class EventParser:
    """
    Feed it a stream's bytes as they come, cut anywhere; it gives back the events they complete.

    One leading byte order mark is skipped, bytes that are not UTF-8 become U+FFFD. An event without its blank line at
    the end of the stream is not given back but by `end`. `max_event_characters` bounds what is held back; raises
    EventTooLarge.
    """

    def __init__(self, *, max_event_characters: int = 8_000_000) -> None:
        self._decoder = codecs.getincrementaldecoder("utf-8-sig")("replace")
        self._max_event_characters = max_event_characters
        self._after_cr = False  # a CR ended the last chunk: a LF that opens the next one belongs to it
        self._partial: list[str] = []  # pieces of the line that is not over yet
        self._event = ""
        self._lines: list[str] = []
        self._id: str | None = None  # outlives its event: the standard's "last event ID"
        self._held = 0

    def feed(self, chunk: bytes) -> list[ServerSentEvent]:
        text = self._decoder.decode(chunk)
        if self._after_cr and text:
            text = text.removeprefix("\n")
            self._after_cr = False
        if not text:
            return []
        self._after_cr = text.endswith("\r")
        # str.splitlines would also split at U+2028, form feeds and others that are plain text here.
        first, *rest = text.replace("\r\n", "\n").replace("\r", "\n").split("\n")
        self._hold(first)
        self._partial.append(first)
        if not rest:
            return []
        events: list[ServerSentEvent] = []
        line = "".join(self._partial)
        for following in rest:
            if event := self._take(line):
                events.append(event)
            self._hold(following)
            line = following
        self._partial = [line]
        return events

    def end(self) -> ServerSentEvent | None:
        """The event that the stream ended in. The standard drops it, since nobody knows whether it is whole."""
        line, self._partial = "".join(self._partial), []
        if line:
            self._take(line)
        return self._dispatch()

    def _hold(self, text: str) -> None:
        self._held += len(text)
        if self._held > self._max_event_characters:
            raise EventTooLarge(f"one event is larger than {self._max_event_characters} characters")

    def _take(self, line: str) -> ServerSentEvent | None:
        if not line:
            return self._dispatch()
        name, _, value = line.partition(":")
        value = value.removeprefix(" ")
        if name == "data":
            self._lines.append(value)
        elif name == "event":
            self._event = value
        elif name == "id" and "\0" not in value:
            self._id = value
        elif not name:
            self._held -= len(line)  # a comment: keep-alives may go on for hours
        return None

    def _dispatch(self) -> ServerSentEvent | None:
        event, lines = self._event, self._lines
        self._event, self._lines, self._held = "", [], 0
        if not lines:
            return None
        return ServerSentEvent(event=event or "message", data="\n".join(lines), id=self._id)
