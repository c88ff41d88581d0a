"""What the hand-written fakes share: jobs of any model, done as the test says, books, and calls back. No dialect."""

from __future__ import annotations

import abc
import contextlib
import enum
import json
import threading
import uuid
from dataclasses import dataclass, field
from typing import Any

import httpx

from tests.e2e.fakes.provider import PIXEL
from tests.e2e.server import Answering, LoopbackServer


class Mood(enum.StrEnum):
    WELL = "well"
    BROKE = "broke"  # the account has no credit: nothing is started
    DOWN = "down"  # every submit is answered with a 500, and nothing is started
    HANGS = "hangs"  # jobs are taken and never get done


@dataclass
class Job:
    """A line in the books."""

    id: str
    model: str
    input: dict[str, Any]
    headers: dict[str, str]  # of the submit
    webhook: str | None = None
    state: str = "waiting"  # running, done, canceled
    polls: int = 0
    cancels: int = 0
    has_called_back: threading.Event = field(default_factory=threading.Event)

    @property
    def is_billed(self) -> bool:
        return self.state == "done"


class Studio(LoopbackServer, abc.ABC):
    """
    Jobs are done at the poll number `polls_needed`. With `calls_back` they are done as soon as they are taken, and who
    submitted them is told by a signed callback; polls see them waiting until it is sent.
    """

    token = ""  # what authorization has to say, set by the dialect

    def __init__(self, answering: type[Answering]) -> None:
        super().__init__(answering)
        self.mood = Mood.WELL
        self.calls_back = False
        self.polls_needed = 2
        self.jobs: list[Job] = []
        self.strange: list[str] = []  # requests that the dialect does not know
        self.strangers = 0  # requests without our token
        self.shown_at_files: list[str] = []  # credentials that came to where files lie in the open
        self.lock = threading.RLock()

    @property
    def started(self) -> int:
        return len(self.jobs)

    @property
    def billed(self) -> int:
        return sum(job.is_billed for job in self.jobs)

    def begin(self, model: str, input: dict[str, Any], *, headers: dict[str, str], webhook: str | None) -> Job:
        job = Job(id=self.new_id(), model=model, input=input, headers=headers, webhook=webhook)
        with self.lock:
            self.jobs.append(job)
        if self.calls_back and webhook is not None and self.mood is not Mood.HANGS:
            # From a thread of its own: who submitted is still to read the answer to that.
            threading.Thread(target=self._call_back, args=(job,), daemon=True).start()
        return job

    def find(self, id: str) -> Job | None:
        with self.lock:
            return next((job for job in self.jobs if job.id == id), None)

    def look(self, job: Job) -> None:
        """A poll: one step on."""
        with self.lock:
            job.polls += 1
            is_told_otherwise = self.calls_back and job.webhook is not None
            if self.mood is Mood.HANGS or is_told_otherwise or job.state in ("done", "canceled"):
                return
            job.state = "done" if job.polls >= self.polls_needed else "running"

    def cancel(self, job: Job) -> bool:
        """False: too late."""
        with self.lock:
            job.cancels += 1
            if job.state in ("done", "canceled"):
                return False
            job.state = "canceled"
            return True

    def file_url(self, job: Job) -> str:
        return f"{self.url}/_files/{job.id}.png"

    def _call_back(self, job: Job) -> None:
        assert job.webhook is not None
        with self.lock:
            job.state = "done"
        body = json.dumps(self.told(job)).encode()
        with contextlib.suppress(httpx.TransportError):
            headers = {"content-type": "application/json"} | self.signed(job, body)
            httpx.post(job.webhook, content=body, headers=headers, trust_env=False)
        job.has_called_back.set()

    # -- the dialect's -----------------------------------------------------------------------------------------------

    def new_id(self) -> str:
        return str(uuid.uuid4())

    @abc.abstractmethod
    def told(self, job: Job) -> dict[str, Any]:
        """The body of its callback."""

    @abc.abstractmethod
    def signed(self, job: Job, body: bytes) -> dict[str, str]:
        """Headers that prove it."""


class Desk(Answering, abc.ABC):
    """One request to a studio: files lie in the open, all else is for those who show the token."""

    @property
    def studio(self) -> Any:
        return self.server.owner  # type: ignore[attr-defined]

    def _any(self) -> None:
        if self.path.startswith("/_files/"):
            self.studio.shown_at_files += [
                v for k, v in self.headers.items() if k.lower() in ("authorization", "x-key")
            ]
            self.send("image/png", PIXEL)
            return
        if self.is_open(self.path):
            self.speak(b"")
            return
        body = self.body()
        if self.headers.get("authorization") != self.studio.token:
            self.studio.strangers += 1
            self.answer(401, {"detail": "Unauthenticated", "title": "Unauthenticated", "status": 401})
            return
        self.speak(body)

    do_GET = do_POST = do_PUT = _any  # noqa: N815 - the standard library's names

    def is_open(self, path: str) -> bool:
        return False

    @abc.abstractmethod
    def speak(self, body: bytes) -> None:
        """Answer one who has shown the token, or who asked where it is open."""

    def strange(self) -> None:
        self.studio.strange.append(f"{self.command} {self.path}")
        self.answer(404, {"detail": "The requested resource could not be found.", "status": 404})

    def send(self, kind: str, body: bytes, *, status: int = 200, headers: dict[str, str] | None = None) -> None:
        self.send_response(status)
        for name, value in ({"content-type": kind, "content-length": str(len(body))} | (headers or {})).items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)

    def lower(self) -> dict[str, str]:
        return {name.lower(): value for name, value in self.headers.items()}
