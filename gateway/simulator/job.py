"""One simulated job: its course, its output, its row in the books. Its only traffic is to fetch its input."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import io
import time
from datetime import UTC, datetime
from typing import Any

import httpx
import msgspec
from PIL import Image

from gateway.contract.host import host_of, is_loopback
from gateway.simulator.behaviour import Behaviour, Fate, bill

TERMINAL = frozenset({"succeeded", "failed", "canceled"})
_MOST_PIXELS = 16_000_000
_MOST_BYTES = 32_000_000


class Job:
    """`changed` is set at every step, for waiting requests and streams."""

    def __init__(
        self, id: str, body: dict[str, Any], fate: Fate, *, model: str, base: str, idempotency_key: str | None = None
    ) -> None:
        self.id = id
        self.idempotency_key = idempotency_key
        self.fate = fate
        self.model = model
        self.input: dict[str, Any] = body["input"]
        encoded = msgspec.json.encode(self.input, order="deterministic")
        self.input_sha256 = hashlib.sha256(encoded).hexdigest()
        self.version = str(body.get("version") or "hidden").rpartition(":")[2]
        self.webhook: str | None = body.get("webhook")
        self.events = body.get("webhook_events_filter") or ["output", "completed"]
        self.status = "starting"
        self.output: Any = None
        self.error: str | None = None
        self.logs = ""
        self.files: dict[str, bytes] = {}
        self.created_at = datetime.now(UTC)
        self.started_at: datetime | None = None
        self.completed_at: datetime | None = None
        self.billed_nanos = 0
        self.changed = asyncio.Event()
        self._base = base
        self._started = 0.0

    @property
    def is_terminal(self) -> bool:
        return self.status in TERMINAL

    async def run(self, behaviour: Behaviour, client: httpx.AsyncClient) -> None:
        """From processing to its end. A job that hangs comes back only when it is cancelled."""
        self._step("processing")
        self.started_at, self._started = datetime.now(UTC), time.monotonic()
        if self.fate.end == "hang":
            await asyncio.Event().wait()
        output, error = None, None
        try:
            output = await self._work(client)
        except Exception as problem:
            # Pillow raises nearly anything over a broken file, and a job that raised must still end.
            error = f"the input cannot be used: {problem}"
        await asyncio.sleep(max(0.0, self.fate.run_seconds - (time.monotonic() - self._started)))
        self.billed_nanos = bill(behaviour, time.monotonic() - self._started)
        if self.fate.end == "fail":
            output, error = None, "CUDA out of memory (E1001)"
        if error is None:
            self.output = output
            self.end("succeeded")
        else:
            self.end("failed", error=error)

    def cancel(self, behaviour: Behaviour) -> None:
        """What had begun to run is billed for its time."""
        if self.is_terminal:
            return
        if self.started_at is not None:
            self.billed_nanos = bill(behaviour, time.monotonic() - self._started)
        self.end("canceled")

    def end(self, status: str, *, error: str | None = None) -> None:
        self.error = error
        self.completed_at = datetime.now(UTC)
        # A rehearsal may run for days: what is over keeps its result, not the pictures it was made from.
        self.input = self._shown_input()
        self._step(status)

    def created(self) -> dict[str, Any]:
        """
        The answer to its create. What is not over says `starting` and has no output yet.

        The official clients take whatever else a create's answer says for the end, and its output for delivered.
        """
        if self.is_terminal:
            return self.shown()
        return self.shown() | {"status": "starting", "output": None, "logs": "", "started_at": None}

    def shown(self) -> dict[str, Any]:
        """Replicate's JSON of it."""
        url = f"{self._base}/v1/predictions/{self.id}"
        metrics = {}
        if self.completed_at is not None and self.started_at is not None:
            metrics["predict_time"] = (self.completed_at - self.started_at).total_seconds()
        if self.completed_at is not None:
            metrics["total_time"] = (self.completed_at - self.created_at).total_seconds()
        return {
            "id": self.id,
            "model": self.model,
            "version": self.version,
            "input": self._shown_input(),
            "logs": self.logs,
            "output": self.output,
            "data_removed": False,
            "error": self.error,
            "source": "api",
            "status": self.status,
            "created_at": _stamp(self.created_at),
            "started_at": _stamp(self.started_at),
            "completed_at": _stamp(self.completed_at),
            "metrics": metrics,
            "urls": {"get": url, "cancel": f"{url}/cancel", "web": url, "stream": f"{self._base}/v1/stream/{self.id}"},
            **({} if self.webhook is None else {"webhook": self.webhook}),
        }

    def booked(self) -> dict[str, Any]:
        """Its row in the books."""
        return {
            "id": self.id,
            "idempotency_key": self.idempotency_key,
            "status": self.status,
            "submit": self.fate.submit,
            "end": self.fate.end,
            "webhook": self.webhook,
            "input_sha256": self.input_sha256,
            "billed_nanos": self.billed_nanos,
            "created_at": _stamp(self.created_at),
            "started_at": _stamp(self.started_at),
            "completed_at": _stamp(self.completed_at),
        }

    def _shown_input(self) -> dict[str, Any]:
        return {key: value for key, value in self.input.items() if not _is_long(value)}

    def _step(self, status: str) -> None:
        self.status = status
        self.changed.set()
        self.changed = asyncio.Event()

    async def _work(self, client: httpx.AsyncClient) -> Any:
        """Real work where there is something to do it on: a picture is enlarged, a prompt comes back word by word."""
        if isinstance(image := self.input.get("image"), str):
            scale = self.input.get("scale", 2)
            if not isinstance(scale, (int, float)) or not 1 <= scale <= 8:
                raise ValueError("scale must be a number from 1 to 8")
            content = await _fetch(image, client)
            self.files["out.png"] = await asyncio.to_thread(_enlarge, content, float(scale))
            self.logs = "100%|##########| 1/1\n"
            return f"{self._base}/v1/files/{self.id}/out.png"
        if isinstance(prompt := self.input.get("prompt"), str):
            return await self._say(prompt)
        return self.input

    async def _say(self, prompt: str) -> list[str]:
        words = [word + " " for word in prompt.split()] or [""]
        for number in range(1, len(words)):
            await asyncio.sleep(self.fate.run_seconds / len(words))
            self.output = words[:number]
            self._step("processing")
        return words


async def _fetch(image: str, client: httpx.AsyncClient) -> bytes:
    if image.startswith("data:"):
        return base64.b64decode(image.partition(",")[2], validate=True)
    if not is_loopback(host_of(image)):
        raise ValueError("the simulator fetches pictures from this machine only")
    async with client.stream("GET", image) as response:
        response.raise_for_status()
        content = b""
        async for chunk in response.aiter_raw():
            content += chunk
            if len(content) > _MOST_BYTES:
                raise ValueError("the picture is too large")
    return content


def _enlarge(content: bytes, scale: float) -> bytes:
    with Image.open(io.BytesIO(content)) as picture:
        size = (round(picture.width * scale), round(picture.height * scale))
        if size[0] * size[1] > _MOST_PIXELS:
            raise ValueError("the picture would be too large")
        enlarged = picture.convert("RGB").resize(size, Image.Resampling.BICUBIC)
    buffer = io.BytesIO()
    enlarged.save(buffer, "PNG", compress_level=1)
    return buffer.getvalue()


def _is_long(value: Any) -> bool:
    return isinstance(value, str) and len(value) > 10_000


def _stamp(moment: datetime | None) -> str | None:
    return None if moment is None else moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")
