"""Whatever is sent, the answer is a problem body of the right status, and nothing is stored."""

from __future__ import annotations

from collections.abc import AsyncIterator

import msgspec
import pytest

from tests.unit.api.fakes import VERSION, Peer, World

GOOD = b'{"version":"' + VERSION.encode() + b'","input":{"prompt":"x"}}'


def inside(text: bytes) -> bytes:
    return b'{"version":"' + VERSION.encode() + b'","input":' + text + b"}"


BODIES = {
    "empty": (b"", 400),
    "blank": (b"  \n", 400),
    "cut": (GOOD[:-1], 400),
    "two values": (GOOD + GOOD, 400),
    "not utf-8": (inside(b'{"prompt":"\xff\xfe"}'), 400),
    "utf-16": (GOOD.decode().encode("utf-16"), 400),
    "byte order mark": (b"\xef\xbb\xbf" + GOOD, 400),
    "lone surrogate": (inside(b'{"prompt":"\\ud800"}'), 400),
    "raw control character": (inside(b'{"prompt":"\x00"}'), 400),
    "NaN": (inside(b'{"prompt":"x","scale":NaN}'), 400),
    "Infinity": (inside(b'{"prompt":"x","scale":-Infinity}'), 400),
    "number beyond doubles": (inside(b'{"prompt":"x","scale":1e999}'), 400),
    "integer of 5,000 digits": (inside(b'{"prompt":"x","steps":' + b"9" * 5000 + b"}"), 400),
    "integer of 400 digits": (inside(b'{"prompt":"x","steps":' + b"9" * 400 + b"}"), 422),
    "deep arrays": (inside(b'{"prompt":' + b"[" * 5000 + b"]" * 5000 + b"}"), 400),
    "deep objects": (inside(b'{"a":' * 3000 + b"1" + b"}" * 3000), 400),
    "deeper than we store": (inside(b'{"prompt":' + b"[" * 200 + b"]" * 200 + b"}"), 400),
    "deep, cut": (b"[" * 100_000, 400),
    "a list": (b"[]", 422),
    "a text": (b'"x"', 422),
    "null": (b"null", 422),
    "nothing in it": (b"{}", 422),
    "version missing": (b'{"input":{}}', 422),
    "version null": (b'{"version":null,"input":{}}', 422),
    "version a number": (b'{"version":7,"input":{}}', 422),
    "input missing": (b'{"version":"acme/writer"}', 422),
    "input null": (inside(b"null"), 422),
    "input a list": (inside(b"[]"), 422),
    "unknown key": (GOOD[:-1] + b',"model":"acme/writer"}', 422),
    "webhook a number": (GOOD[:-1] + b',"webhook":1}', 422),
    "filter a text": (GOOD[:-1] + b',"webhook_events_filter":"start"}', 422),
    "filter unknown": (GOOD[:-1] + b',"webhook_events_filter":["started"]}', 422),
    "stream a text": (GOOD[:-1] + b',"stream":"yes"}', 422),
    "file with bad scheme": (inside(b'{"prompt":"x","image":"C:\\\\pictures"}'), 422),
    "data URI without a comma": (inside(b'{"prompt":"x","image":"data:image/png;base64"}'), 422),
    "too large": (inside(b'{"prompt":"' + b"x" * 300_000 + b'"}'), 413),
}


@pytest.mark.parametrize("name", BODIES)
async def test_a_hostile_body_gets_its_problem_and_leaves_nothing(
    world: World, name: str, caplog: pytest.LogCaptureFixture
) -> None:
    body, status = BODIES[name]
    reply = await world.alice.post("/v1/predictions", content=body, headers={"content-type": "application/json"})
    assert reply.status_code == status, reply.text
    assert_problem(reply.status_code, reply.headers["content-type"], reply.content)
    assert world.store.predictions == {}
    assert caplog.records == []


async def test_more_query_parameters_than_anybody_needs_are_refused(world: World) -> None:
    reply = await world.alice.get("/v1/predictions?" + "&".join(["a=1"] * 65))
    assert reply.status_code == 422, reply.text
    assert_problem(reply.status_code, reply.headers["content-type"], reply.content)


def assert_problem(status: int, content_type: str, content: bytes) -> None:
    assert content_type == "application/problem+json"
    problem = msgspec.json.decode(content)
    assert isinstance(problem, dict)
    assert problem["status"] == status
    assert isinstance(problem["title"], str)
    assert isinstance(problem["detail"], str)
    assert problem["detail"]
    if status == 422 and "invalid_fields" in problem:
        lines = "".join(
            f"- {one['field']}: {one['description']}\n" if one["field"] else f"- {one['description']}\n"
            for one in problem["invalid_fields"]
        )
        assert problem["detail"] == lines


@pytest.mark.parametrize(
    ("path", "body", "fields"),
    [
        ("/v1/predictions", {}, [("required", "", "version is required"), ("required", "", "input is required")]),
        (
            "/v1/predictions",
            {"version": "x", "input": {}, "model": "y"},
            [("additional_property_not_allowed", "", "Additional property model is not allowed")],
        ),
        (
            "/v1/models/acme/writer/predictions",
            {"version": "x", "input": {}},
            [("additional_property_not_allowed", "", "Additional property version is not allowed")],
        ),
        (
            "/v1/models/acme/writer/predictions",
            {"version": None, "input": {}},
            [("additional_property_not_allowed", "", "Additional property version is not allowed")],
        ),
        (
            "/v1/predictions",
            {"version": 1, "input": []},
            [
                ("invalid_type", "version", "Invalid type. Expected: string, given: integer"),
                ("invalid_type", "input", "Invalid type. Expected: object, given: array"),
            ],
        ),
        (
            "/v1/predictions",
            {"version": VERSION, "input": {}, "webhook_events_filter": ["done"]},
            [
                (
                    "enum",
                    "webhook_events_filter.0",
                    'webhook_events_filter.0 must be one of the following: "start", "output", "logs", "completed"',
                )
            ],
        ),
        ("/v1/predictions", [], [("invalid_type", "", "Invalid type. Expected: object, given: array")]),
    ],
)
async def test_a_wrong_body_is_told_in_the_words_of_replicate(
    world: World, path: str, body: object, fields: list[tuple[str, str, str]]
) -> None:
    reply = await world.alice.post(path, json=body)
    assert reply.status_code == 422
    assert reply.json()["title"] == "Input validation failed"
    assert [(one["type"], one["field"], one["description"]) for one in reply.json()["invalid_fields"]] == fields
    assert_problem(422, reply.headers["content-type"], reply.content)


@pytest.mark.parametrize(
    "kind", ["text/plain", "multipart/form-data; boundary=x", "application/x-www-form-urlencoded", "é"]
)
async def test_another_content_type_is_a_415(world: World, kind: str) -> None:
    reply = await world.alice.post("/v1/predictions", content=GOOD, headers=[(b"content-type", kind.encode("latin-1"))])
    assert reply.status_code == 415
    assert_problem(415, reply.headers["content-type"], reply.content)


async def test_no_content_type_is_read_as_json(world: World) -> None:
    assert (await world.alice.post("/v1/predictions", content=GOOD)).status_code == 201


async def test_null_where_clients_send_it_for_nothing_is_nothing(world: World) -> None:
    body = {
        "version": VERSION,
        "input": {"prompt": "x"},
        "webhook": None,
        "webhook_events_filter": None,
        "stream": None,
    }
    assert (await world.alice.post("/v1/predictions", json=body)).status_code == 201
    assert world.only.request.webhook is None


@pytest.mark.parametrize(
    "path",
    [
        "/",
        "/v1",
        "/v1/",
        "/v2/predictions",
        "/v1/nothing",
        "/v1x/predictions",
        "/v1predictions",
        "/predictions",
        "/v1/predictions/a/b",
        "/docs",
        "/schema",
        "/v1/predictions/x/cancel/y",
        "/v1/%2e%2e/livez",
        "/v1/models//writer",
        "/v1/%00",
        "/v1/é",
        "/stream",
        "/cb/",
        "/livez/x",
    ],
)
async def test_an_unknown_path_is_a_404_problem(world: World, path: str) -> None:
    reply = await world.alice.get(path)
    assert reply.status_code == 404
    assert_problem(404, reply.headers["content-type"], reply.content)
    assert reply.json()["detail"] == "The requested resource could not be found."


@pytest.mark.parametrize(
    ("method", "path", "allow"),
    [
        ("DELETE", "/v1/predictions", "GET, HEAD, POST"),
        ("PATCH", "/v1/models/acme/writer", "GET, HEAD"),
        ("POST", "/v1/models", "GET, HEAD, QUERY"),
        ("POST", "/v1/deployments", "GET, HEAD"),
        ("POST", "/livez", "GET, HEAD"),
        ("GET", "/cb/" + "t" * 43, "POST"),
        ("BREW", "/v1/files", "GET, HEAD, POST"),
        ("OPTIONS", "/v1/account", "GET, HEAD"),
    ],
)
async def test_another_method_is_a_405_that_names_the_right_ones(
    world: World, method: str, path: str, allow: str
) -> None:
    reply = await world.alice.request(method, path)
    assert reply.status_code == 405
    assert reply.headers["allow"] == allow
    assert_problem(405, reply.headers["content-type"], reply.content)


async def test_a_bad_host_is_a_problem_and_not_a_page(world: World) -> None:
    reply = await world.alice.get("/v1/account", headers={"host": "a b<script>"})
    assert reply.status_code == 400
    assert_problem(400, reply.headers["content-type"], reply.content)


async def test_a_declared_length_over_the_limit_is_refused_before_a_byte_is_read(world: World) -> None:
    peer = Peer(world, "POST", "/v1/predictions", authorization=f"Bearer {auth()}", content_length="9" * 30)
    reads: list[int] = []
    original = peer._receive

    async def counted() -> dict[str, object]:
        reads.append(1)
        return await original()

    peer._receive = counted  # type: ignore[method-assign]
    await peer.run()
    assert peer.status == 413
    assert reads == []


async def test_a_body_of_undeclared_length_is_cut_off_at_the_limit(world: World) -> None:
    given = 0

    async def endless() -> AsyncIterator[bytes]:
        nonlocal given
        while given < 5_000_000:
            given += 50_000
            yield b" " * 50_000

    reply = await world.alice.post("/v1/predictions", content=endless(), headers={"content-type": "application/json"})
    assert reply.status_code == 413
    assert given <= 300_000  # the limit is 200,000
    assert reply.headers["connection"] == "close"


async def test_a_peer_that_leaves_in_the_middle_of_its_body_gets_nothing_and_breaks_nothing(world: World) -> None:
    peer = Peer(world, "POST", "/v1/predictions", authorization=f"Bearer {auth()}")
    peer._body = None
    peer.gone.set()
    await peer.run()
    assert peer.sent == []
    assert world.store.predictions == {}


async def test_a_body_that_never_comes_is_given_up(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gateway.api.exchange.BODY_SECONDS", 0.01)
    peer = Peer(world, "POST", "/v1/predictions", authorization=f"Bearer {auth()}")
    peer._body = None
    await peer.run()
    assert peer.status == 408
    assert_problem(408, "application/problem+json", peer.body)


async def test_head_is_get_without_a_body(world: World) -> None:
    reply = await world.alice.head("/v1/account")
    assert reply.status_code == 200
    assert reply.content == b""
    assert int(reply.headers["content-length"]) > 0


async def test_a_web_socket_is_closed(world: World) -> None:
    sent: list[dict[str, object]] = []

    async def receive() -> dict[str, object]:
        return {"type": "websocket.connect"}

    async def send(message: dict[str, object]) -> None:
        sent.append(message)

    scope = {
        "type": "websocket",
        "path": "/v1/predictions",
        "raw_path": b"/v1/predictions",
        "query_string": b"",
        "root_path": "",
        "headers": [],
        "scheme": "wss",
        "subprotocols": [],
        "server": None,
        "client": None,
    }
    await world.app(scope, receive, send)  # type: ignore[arg-type]
    assert [message["type"] for message in sent] == ["websocket.close"]


async def test_what_is_announced_of_requests_holds_no_name_a_caller_made_up(world: World) -> None:
    from gateway.contract.observer import Observer

    heard: list[tuple[str, str, int]] = []

    class Listener(Observer):
        def request_served(self, route: str, method: str, status: int, seconds: float) -> None:
            heard.append((route, method, status))

    other = World(world.files.folder, observer=Listener())
    await other.alice.get("/v1/predictions/made-up")
    await other.alice.request("BREW", "/v1/predictions/made-up")
    await other.alice.get("/v1/made-up")
    assert heard == [
        ("/v1/predictions/{id}", "GET", 404),
        ("/v1/predictions/{id}", "_OTHER", 405),
        ("", "_OTHER", 404),
    ]


def auth() -> str:
    from tests.unit.api.fakes import ALICE

    return ALICE.text
