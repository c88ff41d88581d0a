"""A small engine, store and the rest, in memory, that the API's tests run against. They keep the seams' promises."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
from collections.abc import AsyncIterator, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import msgspec
from litestar import Litestar

from gateway.api import Context, application
from gateway.config.model import Server
from gateway.contract.clock import SeededIds
from gateway.contract.errors import AddressForbidden, StoreUnavailable
from gateway.contract.key import KeyRecord, new_key
from gateway.contract.model import Model, Version
from gateway.contract.prediction import Prediction, Request, Status
from gateway.store.protocol import Created, CreateResult, FileRow, Page, StoredEvent
from gateway.testing import ManualClock

BEGIN = datetime(2026, 1, 2, 3, 4, 5, 678000, tzinfo=UTC)
PUBLIC = "https://turnout.example"
ALICE = new_key("alice")
BOB = new_key("bob")
ADMIN = new_key("admin")
READER = new_key("reader")
VERSION = "a" * 64
OLD_VERSION = "b" * 64
FILES_VERSION = "c" * 64


def replace(struct: Any, **changes: Any) -> Any:
    return msgspec.structs.replace(struct, **changes)


class FakeStore:
    """Predictions, events and files in dicts; every read takes the owner seriously."""

    def __init__(self) -> None:
        self.predictions: dict[str, Prediction] = {}
        self.stored_events: dict[str, list[StoredEvent]] = {}
        self.files: dict[str, FileRow] = {}
        self.is_down = False

    def _up(self) -> None:
        if self.is_down:
            raise StoreUnavailable("the disk is full")

    async def get(self, id: str, *, owner: str | None = None) -> Prediction | None:
        self._up()
        found = self.predictions.get(id)
        return found if found is not None and owner in (None, found.owner) else None

    async def list_predictions(
        self,
        *,
        owner: str,
        position: str | None = None,
        limit: int = 100,
        created_after: datetime | None = None,
        created_before: datetime | None = None,
    ) -> Page:
        self._up()
        mine = [
            one
            for one in self.predictions.values()
            if one.owner == owner
            and (created_after is None or one.created_at >= created_after)
            and (created_before is None or one.created_at < created_before)
        ]
        mine.sort(key=lambda one: (one.created_at, one.id), reverse=True)
        begin = int(position or 0)
        return Page(
            predictions=tuple(mine[begin : begin + limit]),
            next=str(begin + limit) if begin + limit < len(mine) else None,
            previous=str(max(0, begin - limit)) if begin else None,
        )

    async def find_stream(self, stream_token: str) -> str | None:
        return next((one.id for one in self.predictions.values() if one.stream_token == stream_token), None)

    async def events(self, id: str, *, after: int = -1, limit: int = 1000) -> list[StoredEvent]:
        return [event for event in self.stored_events.get(id, []) if event.sequence > after][:limit]

    async def put_file(self, row: FileRow) -> None:
        self._up()
        self.files[row.id] = row

    async def get_file(self, id: str, *, owner: str | None) -> FileRow | None:
        row = self.files.get(id)
        return row if row is not None and owner in (None, row.owner) else None

    async def list_files(
        self, *, owner: str, position: str | None = None, limit: int = 100
    ) -> tuple[list[FileRow], str | None, str | None]:
        mine = [row for row in self.files.values() if row.owner == owner][::-1]
        begin = int(position or 0)
        return mine[begin : begin + limit], str(begin + limit) if begin + limit < len(mine) else None, None

    async def delete_file(self, id: str, *, owner: str) -> FileRow | None:
        row = await self.get_file(id, owner=owner)
        return self.files.pop(id) if row is not None else None

    async def check(self) -> None:
        self._up()


class FakeChanges:
    def __init__(self, engine: FakeEngine, id: str) -> None:
        self._engine = engine
        self._id = id

    async def wait(self, seconds: float) -> bool:
        self._engine.is_watched.set()
        if self._engine.during_wait is not None:
            return bool(await self._engine.during_wait(self._id, seconds))
        return False


class FakeEngine:
    """Accepts what it is given. `ending` is what a waited prediction comes to; `held` keeps a create from returning."""

    def __init__(self, store: FakeStore, clock: ManualClock, ids: SeededIds) -> None:
        self.store = store
        self.clock = clock
        self.ids = ids
        self.is_draining = False
        self.open_count = 0
        self.ending: dict[str, Any] | None = {"status": Status.SUCCEEDED, "output": "out"}
        self.failures: list[Exception] = []  # of the next creates
        self.wait_failure: Exception | None = None
        self.held: asyncio.Event | None = None
        self.wait_held: asyncio.Event | None = None
        self.entered = asyncio.Event()
        self.waited: list[float] = []
        self.cancel_afters: list[float | None] = []
        self.callbacks: list[tuple[str, dict[str, str], bytes]] = []
        self.callback_outcome: str | Exception = "applied"
        self.during_wait: Any = None
        self.is_watched = asyncio.Event()
        self.is_waited_for = asyncio.Event()
        self.watchers = 0
        self._keys: dict[tuple[str, str], tuple[str, str]] = {}

    async def create(
        self,
        request: Request,
        *,
        owner: str,
        cancel_after_seconds: float | None = None,
        idempotency_key: str | None = None,
        body_hash: str = "",
    ) -> CreateResult:
        self.entered.set()
        if self.held is not None:
            await self.held.wait()
        if self.failures:
            raise self.failures.pop(0)
        if idempotency_key is not None and (known := self._keys.get((owner, idempotency_key))) is not None:
            outcome = Created.SAME if known[1] == body_hash else Created.CONFLICT
            return CreateResult(outcome=outcome, prediction=self.store.predictions[known[0]])
        self.cancel_afters.append(cancel_after_seconds)
        prediction = Prediction(
            id=self.ids.prediction(),
            owner=owner,
            request=request,
            created_at=self.clock.now(),
            deadline_at=self.clock.now() + timedelta(seconds=cancel_after_seconds or 3600),
            stream_token=self.ids.token(),
        )
        self.store.predictions[prediction.id] = prediction
        if idempotency_key is not None:
            self._keys[owner, idempotency_key] = (prediction.id, body_hash)
        return CreateResult(outcome=Created.CREATED, prediction=prediction)

    async def wait(self, id: str, *, seconds: float) -> Prediction:
        self.waited.append(seconds)
        self.is_waited_for.set()
        if self.wait_held is not None:
            await self.wait_held.wait()
        if self.wait_failure is not None:
            raise self.wait_failure
        if self.ending is not None and not self.store.predictions[id].is_terminal:
            self.end(id, **self.ending)
        return self.store.predictions[id]

    def end(self, id: str, **changes: Any) -> Prediction:
        prediction: Prediction = replace(
            self.store.predictions[id], started_at=self.clock.now(), completed_at=self.clock.now(), **changes
        )
        self.store.predictions[id] = prediction
        return prediction

    async def cancel(self, id: str, *, owner: str) -> Prediction | None:
        found = await self.store.get(id, owner=owner)
        if found is None or found.is_terminal:
            return found
        return self.end(id, status=Status.CANCELED)

    async def callback(self, token: str, headers: Mapping[str, str], body: bytes) -> str:
        self.callbacks.append((token, dict(headers), body))
        if isinstance(self.callback_outcome, Exception):
            raise self.callback_outcome
        return self.callback_outcome

    @contextlib.contextmanager
    def changes(self, id: str) -> Iterator[FakeChanges]:
        self.watchers += 1
        try:
            yield FakeChanges(self, id)
        finally:
            self.watchers -= 1


class FakeModels:
    def __init__(self, *models: Model) -> None:
        self.all = list(models)

    def models(self) -> list[Model]:
        return self.all

    def get(self, slug: str) -> Model | None:
        return next((model for model in self.all if model.slug == slug), None)

    def by_version(self, version: str) -> Model | None:
        return next((model for model in self.all for one in model.versions if one.id == version), None)


@dataclass
class FakeKept:
    token: str
    size_bytes: int
    sha256: str
    md5: str


@dataclass
class FakeOpened:
    path: Path
    name: str
    content_type: str
    size_bytes: int
    etag: str


@dataclass
class FakeFiles:
    folder: Path
    ids: SeededIds
    kept: dict[str, FakeOpened] = field(default_factory=dict)

    async def keep(self, chunks: AsyncIterator[bytes] | bytes, *, owner: str, name: str, content_type: str) -> FakeKept:
        content = chunks if isinstance(chunks, bytes) else b"".join([chunk async for chunk in chunks])
        token = self.ids.token()
        path = self.folder / token
        path.write_bytes(content)
        digest = hashlib.sha256(content).hexdigest()
        self.kept[token] = FakeOpened(path, name, content_type, len(content), digest)
        return FakeKept(token, len(content), digest, hashlib.md5(content).hexdigest())

    async def open(self, token: str) -> FakeOpened | None:
        return self.kept.get(token)

    async def remove(self, token: str) -> None:
        self.kept.pop(token, None)

    def sign_download(self, file_id: str, owner: str, expiry: int) -> str:
        return hashlib.sha256(f"{owner} {file_id} {expiry}".encode()).hexdigest()

    def verify_download(self, file_id: str, owner: str, expiry: int, signature: str) -> bool:
        return signature == self.sign_download(file_id, owner, expiry)


def refuse_private(url: str) -> None:
    if "127.0.0.1" in url or "localhost" in url:
        raise AddressForbidden("127.0.0.1 is a loopback address")


def document(properties: dict[str, Any], *, output: dict[str, Any] | None = None, **components: Any) -> dict[str, Any]:
    required = [name for name, schema in properties.items() if schema.pop("required", False)]
    made = {"type": "object", "title": "Input", "properties": properties}
    if required:
        made["required"] = required
    return {
        "openapi": "3.0.2",
        "components": {"schemas": {"Input": made, "Output": output or {"type": "string"}, **components}},
    }


TEXT_SCHEMA = document(
    {
        "prompt": {"type": "string", "required": True, "x-order": 0},
        "steps": {"type": "integer", "minimum": 1, "maximum": 50, "default": 20},
        "scale": {"type": "number", "default": 7.5},
        "output_format": {"allOf": [{"$ref": "#/components/schemas/output_format"}], "default": "jpg"},
        "image": {"type": "string", "format": "uri", "nullable": True},
        "api_key": {"type": "string", "format": "password", "x-cog-secret": True},
    },
    output_format={
        "enum": ["jpg", "png"],
        "title": "output_format",
        "type": "string",
        "description": "An enumeration.",
    },
)
FILES_SCHEMA = document({}, output={"type": "array", "items": {"type": "string", "format": "uri"}})


def make_models() -> FakeModels:
    text = Model(
        owner="acme",
        name="writer",
        description="Writes things",
        default_version=VERSION,
        versions=(
            Version(id=VERSION, created_at=BEGIN, schema=TEXT_SCHEMA),
            Version(id=OLD_VERSION, created_at=BEGIN - timedelta(days=1), schema=TEXT_SCHEMA),
        ),
        offers=(),
        created_at=BEGIN - timedelta(days=2),
    )
    pictures = Model(
        owner="acme",
        name="painter",
        description="Paints pictures of things",
        default_version=FILES_VERSION,
        versions=(Version(id=FILES_VERSION, created_at=BEGIN + timedelta(days=1), schema=FILES_SCHEMA),),
        offers=(),
        created_at=BEGIN - timedelta(days=3),
    )
    return FakeModels(text, pictures)


async def _metrics() -> bytes:
    return b"turnout_predictions_total 1\n"


class World:
    """The API over its fakes, and a client for each key."""

    def __init__(self, folder: Path, **settings: Any) -> None:
        self.clock = ManualClock(BEGIN)
        self.ids = SeededIds(7)
        self.store = FakeStore()
        self.engine = FakeEngine(self.store, self.clock, self.ids)
        self.models = make_models()
        self.files = FakeFiles(folder, self.ids)
        self.context = Context(
            **{
                "engine": self.engine,
                "store": self.store,
                "models": self.models,
                "files": self.files,
                "keys": {
                    "alice": KeyRecord(name="alice", hash=ALICE.hash, policy="cheapest"),
                    "bob": KeyRecord(name="bob", hash=BOB.hash),
                    "admin": KeyRecord(
                        name="admin", hash=ADMIN.hash, scopes=frozenset({"predictions", "models", "files", "admin"})
                    ),
                    "reader": KeyRecord(name="reader", hash=READER.hash, scopes=frozenset({"models"})),
                },
                "server": Server(public_url=PUBLIC, max_body_bytes=200_000, max_in_flight=100),
                "webhook_secret": "whsec_C2FVsBQIhrscChlQIMV+b5sSYspob7oD",
                "clock": self.clock,
                "ids": self.ids,
                "check_url": refuse_private,
                "policies": lambda: {"cheapest", "fastest"},
                "metrics": _metrics,
                "max_file_bytes": 50_000,
                **settings,
            }
        )
        self.app: Litestar = application(self.context)
        self.alice = self.client(ALICE.text)
        self.bob = self.client(BOB.text)
        self.nobody = self.client(None)

    def client(self, token: str | None, scheme: str = "Bearer") -> httpx.AsyncClient:
        headers = {"authorization": f"{scheme} {token}"} if token is not None else {}
        transport = httpx.ASGITransport(app=self.app)
        return httpx.AsyncClient(transport=transport, base_url=PUBLIC, headers=headers)

    async def post(self, body: Any = None, *, path: str = "/v1/predictions", **headers: str) -> httpx.Response:
        body = body if body is not None else {"version": VERSION, "input": {"prompt": "hi"}}
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        return await self.alice.post(path, json=body, headers=named)

    @property
    def only(self) -> Prediction:
        (prediction,) = self.store.predictions.values()
        return prediction

    def add_events(self, id: str, *events: tuple[str, str]) -> None:
        stored = self.store.stored_events.setdefault(id, [])
        for event, data in events:
            stored.append(StoredEvent(sequence=len(stored), event=event, data=data, at=self.clock.now()))
        self.store.predictions[id] = replace(self.store.predictions[id], events=len(stored))


class Peer:
    """One raw ASGI request by hand: its connection can break whenever the test says so."""

    def __init__(self, world: World, method: str, path: str, *, body: bytes = b"", **headers: str) -> None:
        self.world = world
        self.gone = asyncio.Event()
        self.sent: list[dict[str, Any]] = []
        self.got = asyncio.Event()
        self._body: bytes | None = body
        given = {"host": "turnout.example", "content-type": "application/json", **headers}
        self._scope: dict[str, Any] = {
            "type": "http",
            "asgi": {"version": "3.0"},
            "http_version": "1.1",
            "method": method,
            "path": path,
            "raw_path": path.encode(),
            "query_string": b"",
            "root_path": "",
            "scheme": "https",
            "server": ("turnout.example", 443),
            "client": ("192.0.2.1", 1234),
            "headers": [(name.replace("_", "-").encode(), value.encode("latin-1")) for name, value in given.items()],
        }

    async def _receive(self) -> dict[str, Any]:
        if self._body is not None:
            body, self._body = self._body, None
            return {"type": "http.request", "body": body, "more_body": False}
        await self.gone.wait()
        return {"type": "http.disconnect"}

    async def _send(self, message: Any) -> None:
        if not self.gone.is_set():  # as uvicorn: what is sent to nobody is dropped
            self.sent.append(message)
            self.got.set()

    async def run(self) -> None:
        await self.world.app(self._scope, self._receive, self._send)  # type: ignore[arg-type]

    @property
    def status(self) -> int:
        return int(self.sent[0]["status"])

    @property
    def body(self) -> bytes:
        return b"".join(message.get("body", b"") for message in self.sent[1:])

    @property
    def json(self) -> Any:
        return msgspec.json.decode(self.body)
