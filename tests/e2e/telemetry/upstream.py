"""A provider that quotes everything it was told, in every way of failing: Replicate's dialect on a real socket."""

from __future__ import annotations

import contextlib
import json
import threading
import time
import uuid
from dataclasses import dataclass
from typing import Any

import httpx

from tests.e2e.conftest import png
from tests.e2e.server import Answering, LoopbackServer

PNG = png()


@dataclass
class Job:
    id: str
    base: str
    input: dict[str, Any]
    webhook: str | None
    traceparent: str
    status: str = "processing"


class Quoting(LoopbackServer):
    """
    The first part of a path names the provider: `/first/v1/predictions`. What becomes of a job is its input's `do`, but
    that `second` does without faults:

    echo, later (a moment later, with a callback before and one after), hang, file, lost (a file that is not there),
    fail, moderated: a job of that end;
    refuse 500, throttle 429, bad 422, deny 401, broke 402, garbage, html, cut: an answer of that sort, with a quote.
    """

    def __init__(self) -> None:
        super().__init__(_Answer)
        self.jobs: dict[str, Job] = {}
        self.traceparents: list[str] = []

    def quote(self, job: Job) -> str:
        return f"cannot do {json.dumps(job.input)} for {job.webhook}"

    def shown(self, job: Job) -> dict[str, Any]:
        done = job.status == "succeeded"
        output: Any = f"done: {job.input.get('text', '')}"
        if job.input["do"] in ("file", "lost"):
            output = f"{self.url}/files/{job.input['do']}.png"
        return {
            "id": job.id,
            "input": job.input,
            "output": output if done else None,
            "error": self.quote(job) if job.status == "failed" else None,
            "logs": f"working on {json.dumps(job.input)}\n",
            "status": job.status,
            "created_at": _moment(),
            "started_at": _moment(),
            "metrics": {} if job.status == "processing" else {"predict_time": 0.1, "cold_start_time": 0.2},
            "urls": {"get": f"https://elsewhere.example/{job.id}"},
        }

    def finish_later(self, job: Job) -> None:
        """Told twice, by callbacks with a trace of their own."""
        time.sleep(0.2)
        self._call_back(job)
        time.sleep(0.2)
        job.status = "succeeded"
        self._call_back(job)

    def _call_back(self, job: Job) -> None:
        if job.webhook is not None:
            headers = {"traceparent": f"00-{'e' * 32}-{'f' * 16}-01"}
            with contextlib.suppress(httpx.HTTPError):
                httpx.post(job.webhook, json=self.shown(job), headers=headers, trust_env=False, timeout=5)


def _moment() -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())


_ENDS = {"echo": "succeeded", "file": "succeeded", "lost": "succeeded", "fail": "failed", "moderated": "failed"}
_STATUSES = {"refuse": 500, "throttle": 429, "bad": 422, "deny": 401, "broke": 402}


class _Answer(Answering):
    @property
    def _upstream(self) -> Quoting:
        return self.server.owner  # type: ignore[attr-defined, no-any-return]

    def do_POST(self) -> None:  # noqa: N802 - the standard library calls it so
        body = json.loads(self.body() or b"{}")
        parts = self.path.strip("/").split("/")
        if parts[-1] == "cancel":
            self._cancel(parts[-2])
            return
        job = Job(uuid.uuid4().hex[:26], parts[0], body["input"], body.get("webhook"), self._traceparent())
        do = job.input["do"]
        if job.base == "second" and do not in ("later", "hang"):
            do = "echo"
        if do in _STATUSES:
            quote = f"{self._upstream.quote(job)} with {self.headers['authorization']}"
            self.answer(_STATUSES[do], {"detail": quote, "title": quote, "status": _STATUSES[do]})
        elif do in ("garbage", "html"):
            self._say(f"<html>{self._upstream.quote(job)}" if do == "html" else f'{{"id": {body!r}', do)
        elif do == "cut":
            self.close_connection = True
            self.connection.close()
        else:
            self._begin(job, do)

    def _begin(self, job: Job, do: str) -> None:
        job.status = _ENDS.get(do, "processing")
        self._upstream.jobs[job.id] = job
        if do == "moderated":
            shown = self._upstream.shown(job) | {"error": f"NSFW: {self._upstream.quote(job)} (E005)"}
            self.answer(201, shown)
            return
        self._answer_job(201, job)
        if do == "later":
            threading.Thread(target=self._upstream.finish_later, args=(job,), daemon=True).start()

    def do_GET(self) -> None:  # noqa: N802 - the standard library calls it so
        if self.path.startswith("/files/"):
            self._file()
            return
        job = self._upstream.jobs.get(self.path.rpartition("/")[2])
        if job is None:
            self.answer(404, {"detail": "gone"})
            return
        self._answer_job(200, job)

    def _cancel(self, id: str) -> None:
        job = self._upstream.jobs[id]
        if job.status == "processing":
            job.status = "canceled"
        self._answer_job(200, job)

    def _answer_job(self, status: int, job: Job) -> None:
        raw = json.dumps(self._upstream.shown(job)).encode()
        self.send_response(status)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(raw)))
        self.send_header("x-ratelimit-remaining-requests", "3")
        self.send_header("x-ratelimit-limit-requests", "4")
        self.end_headers()
        self.wfile.write(raw)

    def _file(self) -> None:
        if "lost" in self.path:
            self.answer(404, {"detail": "no such file"})
            return
        self.send_response(200)
        self.send_header("content-type", "image/png")
        self.send_header("content-length", str(len(PNG)))
        self.end_headers()
        self.wfile.write(PNG)

    def _say(self, text: str, kind: str) -> None:
        raw = text.encode()
        self.send_response(201)
        self.send_header("content-type", "text/html" if kind == "html" else "application/json")
        self.send_header("content-length", str(len(raw)))
        self.end_headers()
        self.wfile.write(raw)

    def _traceparent(self) -> str:
        told = self.headers.get("traceparent", "")
        self._upstream.traceparents.append(told)
        return told


class Refusing(LoopbackServer):
    """A webhook receiver that answers with the status its path names, and a quote: `/500?secret`. Keeps the headers."""

    def __init__(self) -> None:
        super().__init__(_Refuse)
        self.headers: list[dict[str, str]] = []


class _Refuse(Answering):
    def do_POST(self) -> None:  # noqa: N802 - the standard library calls it so
        body = self.body().decode()
        self.server.owner.headers.append({name.lower(): text for name, text in self.headers.items()})  # type: ignore[attr-defined]
        status = int(self.path.strip("/").partition("?")[0])
        self.answer(status, {"cannot": body, "at": self.path})
