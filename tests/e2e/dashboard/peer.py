"""A gateway's operations side, as far as its page sees it: any state on demand, streams that break when told to."""

from __future__ import annotations

import io
import math
import queue
import random
import select
import socket
import threading
import wave
from datetime import UTC, datetime
from typing import Any
from urllib.parse import parse_qs, urlsplit

import msgspec
from PIL import Image, ImageDraw, ImageFilter

from gateway.dashboard import shape
from gateway.dashboard.shell import Shell
from tests.e2e.dashboard.scene import Scene
from tests.e2e.server import Answering, LoopbackServer

KEY = "to_nora_secret"
WEAK_KEY = "to_app_without_admin"
_GROUPS = {"open": ("starting", "processing"), "failed": ("failed", "aborted")}


class OpsPeer(LoopbackServer):
    """
    Serves the real files with the real policy for content, and `scene` as data.

    `answers` makes paths fail: path → (status, detail). `gate` holds every answer about the overview until it is set.
    """

    def __init__(self, scene: Scene) -> None:
        super().__init__(_Operations)
        self.scene = scene
        self.shell = Shell(public_url=self.url)
        self.answers: dict[str, tuple[int, str]] = {}
        self.gate = threading.Event()
        self.gate.set()
        self.asked: list[str] = []
        self._news = threading.Condition()
        self._streams: list[queue.Queue[bytes | None]] = []

    def push(self, name: str, value: shape.Shape) -> None:
        """An event to every page that listens."""
        self._to_all(f"event: {name}\ndata: ".encode() + msgspec.json.encode(value) + b"\n\n")

    def change(self, **fields: Any) -> None:
        """The overview with these fields, told to every page."""
        self.scene.overview = msgspec.structs.replace(self.scene.overview, now=datetime.now(UTC), **fields)
        self.push("overview", self.scene.overview)

    def add(self, row: shape.Row) -> None:
        """A prediction that is new, or has changed."""
        rows = self.scene.rows
        known = next((place for place, one in enumerate(rows) if one.id == row.id), None)
        if known is None:
            rows.insert(0, row)
        else:
            rows[known] = row
        self.push("prediction", row)

    def happen(self, kind: str, title: str, **fields: Any) -> None:
        timeline = self.scene.overview.timeline
        id = max((one.id for one in timeline), default=0) + 1
        line = shape.Happened(id=id, at=datetime.now(UTC), kind=kind, title=title, **fields)
        self.scene.overview = msgspec.structs.replace(self.scene.overview, timeline=(line, *timeline))
        self.push("happened", line)

    def break_streams(self) -> None:
        self._to_all(None)

    def await_streams(self, number: int, *, seconds: float = 10.0) -> None:
        """Returns when so many pages listen."""
        with self._news:
            if not self._news.wait_for(lambda: len(self._streams) == number, seconds):
                raise AssertionError(f"after {seconds} s {len(self._streams)} pages listen, not {number}")

    def listen(self) -> queue.Queue[bytes | None]:
        events: queue.Queue[bytes | None] = queue.Queue()
        with self._news:
            self._streams.append(events)
            self._news.notify_all()
        return events

    def leave(self, events: queue.Queue[bytes | None]) -> None:
        with self._news:
            self._streams.remove(events)
            self._news.notify_all()

    def _to_all(self, item: bytes | None) -> None:
        with self._news:
            for events in self._streams:
                events.put(item)

    def __exit__(self, *error: Any) -> None:
        self.gate.set()
        self.break_streams()
        super().__exit__(*error)


class _Operations(Answering):
    def do_GET(self) -> None:  # noqa: N802 - the standard library calls it so
        parts = urlsplit(self.path)
        self._peer.asked.append(self.path)
        if parts.path == "/dashboard" or parts.path.startswith("/dashboard/"):
            self._file(parts.path.removeprefix("/dashboard").lstrip("/"))
        elif parts.path.startswith("/artifacts/"):
            self._artifact(parts.path)
        elif self._may(parts.path):
            self._data(parts.path, {name: values[0] for name, values in parse_qs(parts.query).items()})

    def do_POST(self) -> None:  # noqa: N802 - the standard library calls it so
        body = self.body()
        if not self._may(self.path):
            return
        *_, target, verb = self.path.split("/")
        if verb == "breakers":
            forced = msgspec.json.decode(body, type=shape.ForceBreaker)
            self._force(forced)
            self._write(f"breaker.{forced.action}", forced.offer, forced.reason)
        else:
            act = msgspec.json.decode(body, type=shape.Act)
            self._write(f"prediction.{verb}", target, act.reason)
            if verb == "cancel":
                row = next(row for row in self._peer.scene.rows if row.id == target)
                now = datetime.now(UTC)
                self._peer.add(msgspec.structs.replace(row, status="canceled", completed_at=now, nanos=0))
        self.answer(200, {})

    def _may(self, path: str) -> bool:
        sent = (self.headers.get("authorization") or "").removeprefix("Bearer ")
        if sent == WEAK_KEY:
            self._refuse(403, 'This key has no scope "admin"')
        elif sent != KEY:
            self._refuse(401, "You did not pass a valid authentication token")
        elif path in self._peer.answers:
            self._refuse(*self._peer.answers[path])
        else:
            return True
        return False

    def _refuse(self, status: int, detail: str) -> None:
        self.answer(status, {"title": "Refused", "detail": detail, "status": status})

    def _data(self, path: str, query: dict[str, str]) -> None:
        scene = self._peer.scene
        match path.removeprefix("/ops/v1/").split("/"):
            case ["overview"]:
                self._peer.gate.wait(15)
                self._json(msgspec.structs.replace(scene.overview, now=datetime.now(UTC)))
            case ["events"]:
                self._stream()
            case ["audit"]:
                self._json(shape.Audit(lines=tuple(scene.audit)))
            case ["predictions"]:
                self._json(_page(scene.rows, query))
            case ["predictions", id] if (detail := scene.detail(id)) is not None:
                self._json(detail)
            case _:
                self._refuse(404, "The requested resource could not be found.")

    def _force(self, forced: shape.ForceBreaker) -> None:
        peer = self._peer
        matrix = peer.scene.overview.matrix
        hand = {"open": "open", "close": "closed", "release": None}[forced.action]
        cells = tuple(
            msgspec.structs.replace(cell, forced=hand, why=forced.reason) if cell.offer == forced.offer else cell
            for cell in matrix.cells
        )
        peer.change(matrix=msgspec.structs.replace(matrix, cells=cells))

    def _write(self, action: str, target: str, reason: str) -> None:
        trail = self._peer.scene.audit
        line = shape.AuditLine(
            id=len(trail) + 1,
            at=datetime.now(UTC),
            who="nora",
            action=action,
            target=target,
            reason=reason,
            outcome="done",
        )
        trail.insert(0, line)
        self._peer.happen(
            "forced" if "breaker" in action else "canceled", f"{action} {target}", text=reason, who="nora"
        )

    def _file(self, name: str) -> None:
        file = self._peer.shell.file(name)
        if file is None:
            self._refuse(404, "There is no such file")
            return
        self._bytes(file.content, file.content_type, policy=self._peer.shell.policy)

    def _artifact(self, path: str) -> None:
        if path.endswith(".wav"):
            self._bytes(_sound(), "audio/wav")
        else:
            self._bytes(_picture(sum(path.encode())), "image/png")

    def _json(self, value: shape.Shape) -> None:
        self._bytes(msgspec.json.encode(value), "application/json")

    def _bytes(self, content: bytes, content_type: str, *, policy: str | None = None) -> None:
        self.send_response(200)
        self.send_header("content-type", content_type)
        self.send_header("content-length", str(len(content)))
        self.send_header("x-content-type-options", "nosniff")
        if policy is not None:
            self.send_header("content-security-policy", policy)
        self.end_headers()
        self.wfile.write(content)

    def _stream(self) -> None:
        self.send_response(200)
        self.send_header("content-type", "text/event-stream; charset=utf-8")
        self.send_header("connection", "close")
        self.end_headers()
        self.wfile.write(b": hi\n\n")
        self.wfile.flush()
        events = self._peer.listen()
        try:
            while self._is_read():
                try:
                    event = events.get(timeout=0.05)
                except queue.Empty:
                    continue
                if event is None:
                    break
                self.wfile.write(event)
                self.wfile.flush()
        finally:
            self._peer.leave(events)
        self.close_connection = True

    def _is_read(self) -> bool:
        """The reader has not closed its end."""
        readable, _, _ = select.select([self.connection], [], [], 0)
        return not readable or self.connection.recv(1, socket.MSG_PEEK) != b""

    @property
    def _peer(self) -> OpsPeer:
        return self.server.owner  # type: ignore[attr-defined, no-any-return]


def _page(rows: list[shape.Row], query: dict[str, str]) -> shape.Rows:
    start, limit = int(query.get("position", "0")), int(query.get("limit", "100"))
    wanted = [row for row in rows if _fits(row, query)]
    after = start + limit
    return shape.Rows(predictions=tuple(wanted[start:after]), next=str(after) if after < len(wanted) else None)


def _fits(row: shape.Row, query: dict[str, str]) -> bool:
    named = all(getattr(row, name) == query[name] for name in ("model", "provider", "owner") if name in query)
    statuses = _GROUPS.get(query.get("status", ""), (query.get("status", ""),))
    is_rescued = row.is_rescued or "rescued" not in query
    return (
        named
        and is_rescued
        and ("status" not in query or row.status in statuses)
        and row.id.startswith(query.get("q", ""))
    )


def _picture(seed: int) -> bytes:
    """Hills before a sky: something to look at."""
    chance = random.Random(seed)
    hue = chance.randrange(360)
    picture = Image.new("RGB", (320, 320))
    draw = ImageDraw.Draw(picture)
    for y in range(320):
        draw.line((0, y, 320, y), fill=f"hsl({(hue + y // 6) % 360}, 60%, {45 + y // 9}%)")
    x, y, size = chance.randrange(60, 260), chance.randrange(50, 130), chance.randrange(24, 52)
    draw.ellipse((x - size, y - size, x + size, y + size), fill=f"hsl({(hue + 40) % 360}, 85%, 82%)")
    for layer in range(4):
        phase, height = chance.uniform(0, 6), 170 + layer * 36
        ridge = [(x, height + 22 * math.sin(x / (34 + 9 * layer) + phase)) for x in range(0, 328, 8)]
        draw.polygon([(0, 320), *ridge, (320, 320)], fill=f"hsl({(hue + 190) % 360}, 34%, {46 - layer * 10}%)")
    kept = io.BytesIO()
    picture.filter(ImageFilter.SMOOTH).save(kept, "PNG")
    return kept.getvalue()


def _sound() -> bytes:
    kept = io.BytesIO()
    with wave.open(kept, "wb") as sound:
        sound.setnchannels(1)
        sound.setsampwidth(2)
        sound.setframerate(8_000)
        sound.writeframes(bytes(8_000))
    return kept.getvalue()
