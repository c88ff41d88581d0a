"""
A provider behind a real socket that does what the input says: chat in OpenAI's dialect, jobs in Replicate's.

Deterministic where the simulator draws: a held job ends when the test says so. Its callbacks are unsigned: only nudges.
"""

from __future__ import annotations

import contextlib
import json
import threading
import time
import uuid
from dataclasses import dataclass, field
from typing import Any

import httpx

from tests.e2e.server import Answering, LoopbackServer

WORDS = ("Once", " upon", " a\n", "time", ".")


@dataclass
class Job:
    id: str
    input: dict[str, Any]
    webhook: str | None = None
    events: tuple[str, ...] = ()
    status: str = "processing"
    output: Any = None
    error: str | None = None
    logs: str = ""
    polls: int = 0
    created_at: float = field(default_factory=time.time)


class Upstream(LoopbackServer):
    """
    Jobs take `do`: "echo" ends at once with the text, "fail" with an error, "hold" runs until it is released or
    canceled, "grow" adds one chunk to its output at each poll.
    """

    def __init__(self) -> None:
        super().__init__(_Provider)
        self._news = threading.Condition()
        self._jobs: dict[str, Job] = {}

    def jobs(self, text: str) -> list[Job]:
        """Every job that was started with this text."""
        with self._news:
            return [job for job in self._jobs.values() if job.input.get("text") == text]

    def release(self, text: str, output: Any = None) -> None:
        """Waits until a job with this text is held, then ends it."""
        job = self.held(text)
        with self._news:
            job.status, job.output = "succeeded", text if output is None else output
        self._nudge(job, "completed")

    def held(self, text: str, *, seconds: float = 10.0) -> Job:
        until = time.monotonic() + seconds
        with self._news:
            while True:
                for job in self._jobs.values():
                    if job.input.get("text") == text and job.status == "processing":
                        return job
                if not self._news.wait(until - time.monotonic()):
                    raise AssertionError(f"no job with the text {text!r} is held")

    # -- called by the threads that answer ---------------------------------------------------------------------------

    def begin(self, body: dict[str, Any]) -> dict[str, Any]:
        input = body["input"]
        events = tuple(body.get("webhook_events_filter") or ("output", "completed"))
        job = Job(id=uuid.uuid4().hex[:26], input=input, webhook=body.get("webhook"), events=events)
        do = input["do"]
        if do == "echo":
            job.status, job.output, job.logs = "succeeded", input.get("text", ""), "echoing\n"
        elif do == "fail":
            job.status, job.error = "failed", f"could not do it: {input.get('text', '')}"
        elif do == "grow":
            job.output = []
        with self._news:
            self._jobs[job.id] = job
            self._news.notify_all()
            shown = _shown(job)
        if do == "grow":
            self._nudge(job, "output")
        return shown

    def look(self, id: str) -> dict[str, Any] | None:
        with self._news:
            job = self._jobs.get(id)
            if job is None:
                return None
            job.polls += 1
            grows = job.input["do"] == "grow" and job.status == "processing"
            if grows:
                job.output = [*job.output, WORDS[len(job.output)]]
                job.status = "succeeded" if len(job.output) == len(WORDS) else job.status
            shown = _shown(job)
        if grows:
            self._nudge(job, "output")
        return shown

    def cancel(self, id: str) -> dict[str, Any] | None:
        with self._news:
            job = self._jobs.get(id)
            if job is None:
                return None
            if job.status == "processing":
                job.status = "canceled"
            return _shown(job)

    def _nudge(self, job: Job, event: str) -> None:
        """Calls back, from a thread of its own: the gateway may be waiting for what this one answers."""
        if job.webhook is not None and event in job.events:
            threading.Thread(target=_call_back, args=(job.webhook, _shown(job)), daemon=True).start()


def _call_back(url: str, body: dict[str, Any]) -> None:
    with contextlib.suppress(httpx.TransportError):
        httpx.post(url, json=body, trust_env=False)


def _shown(job: Job) -> dict[str, Any]:
    at = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(job.created_at))
    return {
        "id": job.id,
        "input": job.input,
        "output": job.output,
        "error": job.error,
        "logs": job.logs,
        "status": job.status,
        "created_at": at,
        "started_at": at,
        "metrics": {} if job.status == "processing" else {"predict_time": 0.25},
        "urls": {"get": f"https://elsewhere.example/{job.id}"},
    }


class _Provider(Answering):
    def do_POST(self) -> None:  # noqa: N802 - the standard library calls it so
        body = json.loads(self.body() or b"{}")
        parts = self.path.strip("/").split("/")
        if parts == ["v1", "chat", "completions"]:
            self._chat(body)
        elif parts[-1] == "cancel":
            shown = self._upstream.cancel(parts[-2])
            self.answer(200, shown) if shown is not None else self._missing()
        elif parts[-1] == "predictions":
            self.answer(201, self._upstream.begin(body))
        else:
            self._missing()

    def do_GET(self) -> None:  # noqa: N802 - the standard library calls it so
        shown = self._upstream.look(self.path.rpartition("/")[2])
        self.answer(200, shown) if shown is not None else self._missing()

    def _missing(self) -> None:
        self.answer(404, {"detail": "The requested resource could not be found.", "status": 404})

    def _chat(self, body: dict[str, Any]) -> None:
        asked = body["messages"][-1]["content"]
        if asked == "refuse":
            self.answer(400, {"error": {"message": "this prompt cannot be read", "type": "invalid_request_error"}})
            return
        chunks = [asked, *WORDS]
        if not body.get("stream"):
            text = "".join(chunks)
            self.answer(200, {"choices": [{"index": 0, "message": {"content": text}, "finish_reason": "stop"}]})
            return
        self.send_response(200)
        self.send_header("content-type", "text/event-stream")
        self.send_header("connection", "close")
        self.end_headers()
        for chunk in chunks:
            self._event({"choices": [{"index": 0, "delta": {"content": chunk}, "finish_reason": None}]})
        self._event({"choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]})
        self._event({"choices": [], "usage": {"prompt_tokens": 3, "completion_tokens": len(chunks)}})
        self.wfile.write(b"data: [DONE]\n\n")
        self.close_connection = True

    def _event(self, event: dict[str, Any]) -> None:
        self.wfile.write(b"data: " + json.dumps(event).encode() + b"\n\n")
        self.wfile.flush()

    @property
    def _upstream(self) -> Upstream:
        return self.server.owner  # type: ignore[attr-defined, no-any-return]
