"""A provider behind a real socket, for any adapter: it answers by its recordings, and keeps books of what it starts."""

from __future__ import annotations

import json
import random
import re
import threading
import uuid
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import unquote, urlsplit

import msgspec

from gateway.contract.provider import HttpRequest
from tests.e2e.fakes import script as scripts
from tests.e2e.fakes.script import IDEMPOTENCY_ID, Exchange, Script
from tests.e2e.server import Answering, LoopbackServer

PIXEL = bytes.fromhex(
    "89504e470d0a1a0a0000000d4948445200000001000000010802000000907753de0000000c49444154789c63f8cfc0000003010100c9fe92ef"
    "0000000049454e44ae426082"
)
_KINDS = {".png": "image/png", ".jpg": "image/jpeg", ".mp4": "video/mp4", ".mp3": "audio/mpeg", ".wav": "audio/wav"}
CREDENTIALS = ("authorization", "x-key", "x-goog-api-key", "api-key", "xi-api-key")
_ADDRESS = re.compile(r"https?://[^/\s\"'\\\\]+")
_UUID = re.compile(r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}")
_HEAD = re.compile(r"(?i:.*(?:/|%2F|_))|[a-z]{2,4}-")


@dataclass
class Faults:
    """Chances of trouble, drawn from one seed. Each is counted under its name when it happens."""

    seed: int = 0
    cut_before: float = 0.0  # the line breaks before the submit is read: nothing starts
    cut_after: float = 0.0  # it breaks after the job was started: nobody hears of it
    refuse: float = 0.0  # a submit is answered as the recordings of `rate-limited` have it
    break_down: float = 0.0  # … of `server-error`
    babble: float = 0.0  # a poll is answered with a page
    cut_poll: float = 0.0
    other_job: float = 0.0  # a poll is answered about somebody else's job
    counts: dict[str, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._random = random.Random(self.seed)

    def strikes(self, name: str) -> bool:
        if self._random.random() >= getattr(self, name):
            return False
        self.counts[name] = self.counts.get(name, 0) + 1
        return True


@dataclass
class Job:
    """A line in the books."""

    id: str
    path: str
    headers: dict[str, str]
    body: bytes
    key: str | None = None  # by which the same submit is known again
    repeats: int = 0
    step: int = 0  # of the exchanges after the submit
    polls: int = 0
    cancels: int = 0
    is_done: bool = False  # its result was handed out, or the submit's answer was the result


class RecordedProvider(LoopbackServer):
    """
    `with RecordedProvider("fal") as fal:` it speaks at `fal.url`. Jobs go one step on with each poll. It plays the
    provider's way to a success, or the recording that is named.

    `jobs` are the books: everything that was started here, and would be billed.
    """

    def __init__(self, word: str, *, recording: str = "", faults: Faults | None = None) -> None:
        self.word = word
        self.script: Script = scripts.of_name(word, recording) if recording else scripts.success(word)
        super().__init__(_Answering)
        self.foreign = ""  # an address: every URL in an answer is one of it
        self.moved = ""  # an address to which files at our own are redirected
        self.sends_away_to = ""  # an address to which everything is redirected
        self.refusing = ""  # a case: submits are answered as the recordings of it have it, and nothing starts
        self.faults = faults or Faults()
        self.jobs: list[Job] = []
        self.turned_away: list[dict[str, str]] = []  # headers
        self.strange: list[str] = []  # requests that no recording knows
        self.lock = threading.Lock()
        self._submit, *self._later = self.script.exchanges
        self._stops = scripts.stops(word)
        self._files = {url: f"/_files/{n}{_suffix(url)}" for n, url in enumerate(self._urls())}
        self._own_files = self._kept()

    @property
    def started(self) -> int:
        return len(self.jobs)

    @property
    def keeps_files(self) -> bool:
        """Its results lie at its own address, for who shows credentials."""
        return bool(self._own_files)

    def _urls(self) -> list[str]:
        """Results elsewhere. Those at the provider's own address stay where they are."""
        own = scripts.own_addresses(self.script)
        return [url for url in scripts.result_urls(self.script.output) if not any(url.startswith(o) for o in own)]

    def _kept(self) -> dict[str, str]:
        """Paths of the results at its own address, which are shown only to who they were made for."""
        urls = set(scripts.result_urls(self.script.output)) - self._files.keys()
        return {_route(url): _KINDS[suffix] if (suffix := _suffix(url)) in _KINDS else "video/mp4" for url in urls}

    # -- answers, each by the thread of its request ------------------------------------------------------------------

    def answer(self, request: _Answering) -> None:
        body = request.body()
        path = request.path
        if self.sends_away_to:
            self.turned_away.append({name.lower(): value for name, value in request.headers.items()})
            return request.send(307, {"location": self.sends_away_to + path}, b"")
        if path.startswith("/_files/"):
            kind = _KINDS.get(path[path.rfind(".") :], "application/octet-stream")
            if any(name in request.headers for name in CREDENTIALS):
                self.strange.append(f"credentials for {path}")
            return request.send(200, {"content-type": kind}, PIXEL)
        if request.command == "GET" and _route(path) in self._own_files:
            if not any(name in request.headers for name in CREDENTIALS):
                return request.send(401, {"content-type": "application/json"}, b'{"error": "who are you?"}')
            if self.moved:
                return request.send(302, {"location": self.moved + path}, b"")
            return request.send(200, {"content-type": self._own_files[_route(path)]}, PIXEL)
        with self.lock:
            job = self._find(path, body)
            exchange = job and self._next(job, request.command, path)
            if job is not None and exchange is not None:
                return self._tell(request, job, exchange)
            if job is not None and self._is_stopped(request, job, path):
                return None
            if self._is_submit(request.command, path):
                return self._start(request, path, body)
            self.strange.append(f"{request.command} {path}")
            return request.send(404, {"content-type": "application/json"}, b'{"error": "no such path"}')

    def _is_submit(self, method: str, path: str) -> bool:
        recorded = self._submit.request
        wanted = _route(recorded.url)
        if IDEMPOTENCY_ID in wanted:
            before, _, after = wanted.partition(IDEMPOTENCY_ID)
            fits = re.search(f"{re.escape(before)}[^/]+{re.escape(after)}$", _route(path)) is not None
        else:
            fits = _route(path).endswith(wanted)
        return method == recorded.method and fits

    def _start(self, request: _Answering, path: str, body: bytes) -> None:
        if self.faults.strikes("cut_before"):
            return request.cut()
        case = self.refusing
        for name, of_fault in (("refuse", "rate-limited"), ("break_down", "server-error")):
            if not case and scripts.refusals(self.word, of_fault) and self.faults.strikes(name):
                case = of_fault
        if case:
            refusal = scripts.refusals(self.word, case)[0]
            return request.send(refusal.status, refusal.headers, refusal.body)
        headers = {name.lower(): value for name, value in request.headers.items()}
        key = _said_for(IDEMPOTENCY_ID, self._submit.request, path, headers, body)
        known = next((job for job in self.jobs if key and job.key == key), None)
        if known is not None:  # sent again: the same job, and not a second one
            known.repeats += 1
            return self._send(request, self._submit, known)
        id = key if self.script.id == IDEMPOTENCY_ID else None
        if self.script.id and id is None:
            id = _said_for(self.script.id, self._submit.request, path, headers, body)
        job = Job(id=id or _id_like(self.script.id), path=path, headers=headers, body=body, key=key)
        job.is_done = not self._later
        self.jobs.append(job)
        if self.faults.strikes("cut_after"):
            return request.cut()
        return self._send(request, self._submit, job)

    def _tell(self, request: _Answering, job: Job, exchange: Exchange) -> None:
        job.polls += 1
        if self.faults.strikes("cut_poll"):
            return request.cut()
        if self.faults.strikes("babble"):
            return request.send(200, {"content-type": "text/html"}, b"<html><body>Welcome</body></html>")
        says_which = any(form.encode() in exchange.body for form in _forms(self.script.id))
        if says_which and self.faults.strikes("other_job"):
            other = Job(id=_id_like(self.script.id), path="", headers={}, body=b"")
            return self._send(request, exchange, other)
        stopped = [poll for stop in self._stops for poll in stop.polls if job.cancels]
        if stopped:
            return self._send(request, stopped[0], job)
        job.step = max(job.step, self._later.index(exchange) + 1)
        job.is_done = job.step >= len(self._later)
        return self._send(request, exchange, job)

    def _find(self, path: str, body: bytes) -> Job | None:
        """The job a request is about."""
        text = path + "\n" + body.decode("utf-8", "replace")
        return next((job for job in self.jobs if any(form in text for form in _forms(job.id))), None)

    def _next(self, job: Job, method: str, path: str) -> Exchange | None:
        """What comes next for a job by this request."""
        asked = [e for e in self._later if e.request.method == method and self._is_at(e, path, job, self.script.id)]
        ahead = [e for e in asked if self._later.index(e) >= job.step]
        return next(iter(ahead or asked[-1:]), None)

    def _is_stopped(self, request: _Answering, job: Job, path: str) -> bool:
        for stop in self._stops:
            if stop.cancel.request.method == request.command and self._is_at(stop.cancel, path, job, stop.id):
                job.cancels += 1
                self._send(request, stop.cancel, job, recorded_id=stop.id)
                return True
        return False

    def _is_at(self, exchange: Exchange, path: str, job: Job, recorded_id: str | None) -> bool:
        wanted = _route(exchange.request.url).replace(IDEMPOTENCY_ID, job.id)
        wanted = wanted.replace(unquote(recorded_id or "\0"), unquote(job.id))
        return _route(path).endswith(wanted)

    def _send(self, request: _Answering, exchange: Exchange, job: Job, *, recorded_id: str | None = None) -> None:
        known = recorded_id or self.script.id
        headers = {name: self._ours(value, job, known) for name, value in exchange.headers.items()}
        body = exchange.body
        if "json" in headers.get("content-type", ""):
            body = self._ours(body.decode(), job, known).encode()
        elif job.key is not None:
            body = body.replace(IDEMPOTENCY_ID.encode(), job.key.encode())  # as long as each other: lengths still hold
        request.send(exchange.status, headers, body)

    def _ours(self, text: str, job: Job, recorded_id: str | None) -> str:
        if self.foreign:
            text = _ADDRESS.sub(self.foreign, text)
        for url, path in self._files.items():
            text = text.replace(json.dumps(url)[1:-1], self.url + path)
        for address in scripts.own_addresses(self.script):
            text = text.replace(address, self.url)
        known = {IDEMPOTENCY_ID: job.key or job.id}
        if recorded_id:
            known |= {unquote(recorded_id): unquote(job.id), recorded_id: job.id}
        # All at once: what is put in may hold what is looked for.
        return re.sub("|".join(map(re.escape, known)), lambda found: known[found[0]], text)


class _Answering(Answering):
    def _any(self) -> None:
        owner: RecordedProvider = self.server.owner  # type: ignore[attr-defined]
        owner.answer(self)

    do_GET = do_POST = do_PUT = do_DELETE = do_PATCH = _any  # noqa: N815 - the standard library's names

    def send(self, status: int, headers: dict[str, str], body: bytes) -> None:
        self.send_response(status)
        for name, value in headers.items():
            if name not in ("content-length", "transfer-encoding", "content-encoding", "connection"):
                self.send_header(name, value)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def cut(self) -> None:
        self.close_connection = True
        self.connection.close()


def _route(url: str) -> str:
    """The path of a URL, however it is quoted, without its query: what tells one door from another."""
    return "/" + unquote(urlsplit(url).path.strip("/"))


def _forms(id: str | None) -> tuple[str, ...]:
    """An id as it may stand in a path and in an answer: as it is, and without what a path needs of it."""
    return tuple(dict.fromkeys((id, unquote(id)))) if id else ()


def _id_like(recorded: str | None) -> str:
    """A new id of the shape of a recorded one: what stands before the last part of it stays."""
    if recorded is None:
        return uuid.uuid4().hex[:26]
    if (found := _UUID.search(recorded)) is not None:
        return recorded.replace(found[0], str(uuid.uuid4()))
    head = _HEAD.match(recorded)
    return (head[0] if head else "") + uuid.uuid4().hex[:26]


def _said_for(known: str, recorded: HttpRequest, path: str, headers: dict[str, str], body: bytes) -> str | None:
    """What a request says where the recorded one has `known`: in its path, a header or its body."""
    if known in recorded.url:
        before, _, after = _route(recorded.url).partition(known)
        found = re.fullmatch(f".*{re.escape(before)}([^/]+){re.escape(after)}", _route(path))
        return found[1] if found else None
    for name, value in recorded.headers.items():
        if value == known:
            return headers.get(name.lower())
    if recorded.content is not None and (at := recorded.content.find(known.encode())) >= 0:
        return body[at : at + len(known)].decode("ascii", "replace")
    if recorded.json is msgspec.UNSET:
        return None
    try:
        return _at_same_place(recorded.json, json.loads(body), known)
    except ValueError:
        return None


def _at_same_place(recorded: Any, real: Any, known: str) -> str | None:
    if recorded == known:
        return real if isinstance(real, str) else None
    if isinstance(recorded, dict) and isinstance(real, dict):
        pairs = [(recorded[key], real[key]) for key in recorded if key in real]
    elif isinstance(recorded, list) and isinstance(real, list):
        pairs = list(zip(recorded, real, strict=False))
    else:
        return None
    return next((found for one, other in pairs if (found := _at_same_place(one, other, known))), None)


def _suffix(url: str) -> str:
    path = urlsplit(url).path
    return next((suffix for suffix in _KINDS if path.endswith(suffix)), ".bin")
