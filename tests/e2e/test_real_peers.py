"""Real servers of dialects that we speak, behind a real gateway: LiteLLM's proxy, MLServer and LitServe."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.e2e.clients import prepared
from tests.e2e.clients.prepared import NotPrepared
from tests.e2e.conftest import absent
from tests.e2e.fakes.elsewhere import Elsewhere
from tests.e2e.gateway_process import GatewayProcess
from tests.e2e.peers.litserve_model import little
from tests.e2e.peers.process import PeerProcess, free_port

pytestmark = pytest.mark.timeout(180)  # they take their time to start
KEY = "sk-peer-0123456789abcdef0123456789abcdef"
STORY = "Once upon a time there was a gateway."
LITELLM = """
model_list:
  - model_name: little
    litellm_params: {{model: openai/little, api_key: none, mock_response: "{story}"}}
  - model_name: vector
    litellm_params: {{model: openai/vector, api_key: none, mock_response: [0.5, 1.0, -2.0]}}
  - model_name: painter
    litellm_params: {{model: openai/painter, api_key: none, mock_response: "{picture}"}}
  - model_name: busy
    litellm_params: {{model: openai/busy, api_key: none, mock_response: "litellm.RateLimitError"}}
  - model_name: broken
    litellm_params: {{model: openai/broken, api_key: none, mock_response: "litellm.InternalServerError"}}
general_settings: {{master_key: "{key}"}}
"""
TEXT = {"type": "array", "items": {"type": "string"}, "x-cog-array-type": "iterator"}
OUTPUTS: dict[str, Any] = {
    "text": {**TEXT, "x-cog-array-display": "concatenate"},
    "file": {"type": "string", "format": "uri"},
    "any": {},
}
CONFIG = """
[local]
enabled = false
[artifacts]
allow = ["{elsewhere}"]
[providers.litellm]
adapter = "openai_compatible"
base_url = "{litellm}/v1"
token = "env:PEER_KEY"
[providers.stranger]
adapter = "openai_compatible"
base_url = "{litellm}/v1"
token = "env:WRONG_KEY"
"""
MLSERVER = """
[local]
enabled = false
[providers.mlserver]
adapter = "kserve"
base_url = "{mlserver}"
"""
LITSERVE = """
[local]
enabled = false
[providers.litserve]
adapter = "openai_compatible"
base_url = "{litserve}/v1"
"""
# Text is streamed wherever it can be; who gives tools is answered whole.
WHOLE = {"tools": [{"type": "function", "function": {"name": "ring", "description": "", "parameters": {}}}]}


def model(name: str, provider: str, remote: str, output: str, options: str = "{}") -> str:
    return f"""
[[models]]
name = "{name}"
schema = "{output}.json"
[[models.offers]]
provider = "{provider}"
name = "{remote}"
options = {options}
"""


class Peer:
    def __init__(self, gateway: GatewayProcess, process: PeerProcess) -> None:
        self.gateway = gateway
        self.process = process

    def predict(self, name: str, **input: Any) -> dict[str, Any]:
        with self.gateway.client(seconds=30) as client:
            answer = client.post(f"/v1/models/{name}/predictions", json={"input": input}, headers={"prefer": "wait=20"})
        assert answer.status_code == 201, answer.text
        return dict(answer.json())

    def well(self) -> None:
        assert "stumbled" not in self.gateway.log
        assert "Traceback" not in self.gateway.log


def written(prompt: str, *, most: int) -> str:
    """What the little model writes, asked without any server."""
    return "".join(little.Chain().write(prompt, most=most))


def outputs_in(lines: Iterator[str]) -> Iterator[str]:
    """The data of a stream's `output` events, as they come."""
    event = ""
    for line in lines:
        if line.startswith("event: "):
            event = line.removeprefix("event: ")
        elif line.startswith("data: ") and event == "output":
            yield line.removeprefix("data: ")


@pytest.fixture(scope="module")
def litellm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Peer]:
    try:
        packages = prepared.litellm()
    except NotPrepared as reason:
        absent(reason)
    folder = tmp_path_factory.mktemp("litellm")
    with ExitStack() as stack:
        elsewhere = stack.enter_context(Elsewhere())
        said = LITELLM.format(story=STORY, picture=f"{elsewhere.url}/picture.png", key=KEY)
        (folder / "litellm.yaml").write_text(said)
        port = free_port()
        arguments = ["-m", "litellm.proxy.proxy_cli", "--config", "litellm.yaml", "--host", "127.0.0.1"]
        process = stack.enter_context(
            PeerProcess(
                [*arguments, "--port", str(port), "--telemetry", "False"],
                packages=packages,
                folder=folder,
                ready="/health/liveliness",
                port=port,
            )
        )
        models = (
            model("peer/little", "litellm", "little", "text")
            + model("peer/vector", "litellm", "vector", "any", '{route = "embeddings"}')
            + model("peer/painter", "litellm", "painter", "file", '{route = "images", single = true}')
            + "".join(model(f"peer/{name}", "litellm", name, "text") for name in ("busy", "broken", "nobody"))
            + model("peer/strange", "stranger", "little", "text")
        )
        yield Peer(
            stack.enter_context(
                _gateway(folder, CONFIG.format(litellm=process.url, elsewhere=elsewhere.place) + models)
            ),
            process,
        )


@pytest.fixture(scope="module")
def mlserver(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Peer]:
    try:
        packages = prepared.mlserver()
    except NotPrepared as reason:
        absent(reason)
    folder = tmp_path_factory.mktemp("mlserver")
    ports = {name: free_port() for name in ("http_port", "grpc_port", "metrics_port")}
    settings = {"host": "127.0.0.1", "parallel_workers": 0, **ports}
    (folder / "settings.json").write_text(json.dumps(settings))
    source = Path(__file__).parent / "peers" / "mlserver_model" / "doubling.py"
    (folder / "doubling.py").write_text(source.read_text())
    (folder / "model-settings.json").write_text(json.dumps({"name": "doubling", "implementation": "doubling.Doubling"}))
    start = "import sys; from mlserver.cli import main; sys.path[:0] = ['.']; sys.argv[1:] = ['start', '.']; main()"
    with ExitStack() as stack:
        process = stack.enter_context(
            PeerProcess(
                ["-c", start], packages=packages, folder=folder, ready="/v2/health/ready", port=ports["http_port"]
            )
        )
        numbers = '{inputs = {x = {datatype = "FP32", shape = [1, 3]}, word = {datatype = "BYTES", shape = [1]}}}'
        binary = numbers.removesuffix("}") + ", binary = true}"
        models = (
            model("peer/doubling", "mlserver", "doubling", "any", numbers)
            + model("peer/binary", "mlserver", "doubling", "any", binary)
            + model("peer/nothing", "mlserver", "nothing", "any", numbers)
        )
        yield Peer(stack.enter_context(_gateway(folder, MLSERVER.format(mlserver=process.url) + models)), process)


@pytest.fixture(scope="module")
def litserve(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Peer]:
    try:
        packages = prepared.litserve()
    except NotPrepared as reason:
        absent(reason)
    folder = tmp_path_factory.mktemp("litserve")
    for source in (Path(__file__).parent / "peers" / "litserve_model").glob("*.py"):
        (folder / source.name).write_text(source.read_text())
    port = free_port()
    with ExitStack() as stack:
        process = stack.enter_context(
            PeerProcess(["serving.py", str(port)], packages=packages, folder=folder, ready="/health", port=port)
        )
        models = (
            model("peer/writer", "litserve", "writer", "text")
            + model("peer/embedder", "litserve", "embedder", "any", '{route = "embeddings"}')
            + model("peer/painter", "litserve", "painter", "file", '{route = "images", single = true}')
        )
        yield Peer(stack.enter_context(_gateway(folder, LITSERVE.format(litserve=process.url) + models)), process)


def _gateway(folder: Path, config: str) -> GatewayProcess:
    for name, output in OUTPUTS.items():
        (folder / f"{name}.json").write_text(json.dumps({"Input": {"type": "object"}, "Output": output}))
    return GatewayProcess(
        folder / "gateway",
        config.replace('schema = "', 'schema = "../'),
        environ={"PEER_KEY": KEY, "WRONG_KEY": "sk-wrong"},
    )


def test_litellm_writes_and_what_it_used_is_known(litellm: Peer) -> None:
    prediction = litellm.predict("peer/little", prompt="Tell me.")
    assert prediction["status"] == "succeeded", (prediction, litellm.process.log[-2000:])
    assert "".join(prediction["output"]) == STORY
    assert prediction["metrics"]["output_token_count"] > 0
    litellm.well()


def test_litellm_streams_and_the_stream_is_passed_on(litellm: Peer) -> None:
    with litellm.gateway.client(seconds=30) as client:
        body = {"input": {"prompt": "Tell me."}, "stream": True}
        created = client.post("/v1/models/peer/little/predictions", json=body).json()
        events = client.get(created["urls"]["stream"], headers={"accept": "text/event-stream"}).text
    data = [
        block.partition("data: ")[2].split("\nid:")[0] for block in events.split("\n\n") if "event: output" in block
    ]
    assert "".join(data) == STORY, events
    assert "event: done" in events


def test_litellm_embeds(litellm: Peer) -> None:
    prediction = litellm.predict("peer/vector", input="x")
    assert prediction["status"] == "succeeded", (prediction, litellm.process.log[-2000:])
    assert [0.5, 1.0, -2.0] in (prediction["output"], *prediction["output"])


def test_litellm_names_a_picture_and_it_is_ours_then(litellm: Peer) -> None:
    prediction = litellm.predict("peer/painter", prompt="a heron")
    assert prediction["status"] == "succeeded", (prediction, litellm.process.log[-2000:])
    file = httpx.get(prediction["output"], trust_env=False)
    assert prediction["output"].startswith(litellm.gateway.url)
    assert file.headers["content-type"] == "image/png"


@pytest.mark.parametrize(
    ("name", "code"),
    [
        ("peer/busy", "rate_limited"),
        ("peer/strange", "credential_refused"),
        ("peer/nobody", "model_missing"),
        ("peer/broken", "job_failed"),
    ],
)
def test_litellm_s_refusals_are_told_apart(litellm: Peer, name: str, code: str) -> None:
    prediction = litellm.predict(name, prompt="x")
    assert prediction["status"] == "failed"
    assert [attempt["code"] for attempt in prediction["routing"]["attempts"]] == [code], prediction
    assert KEY not in litellm.gateway.log
    litellm.well()


def test_mlserver_doubles_numbers_and_turns_words(mlserver: Peer) -> None:
    prediction = mlserver.predict("peer/doubling", x=[[1.0, 2.5, -3.0]], word="heron")
    assert prediction["status"] == "succeeded", (prediction, mlserver.process.log[-3000:])
    output = prediction["output"]
    assert output["x_doubled"] == [2.0, 5.0, -6.0], output  # a batch of one is that one
    assert output["word_turned"] in ("noreh", ["noreh"]), output
    mlserver.well()


@pytest.mark.parametrize(
    ("name", "word", "codes"),
    [
        ("peer/doubling", "fail", ("input_refused", "job_failed", "model_failed")),
        ("peer/nothing", "x", ("model_missing",)),
        ("peer/binary", "x", ("model_failed",)),  # MLServer has no binary tensors over HTTP, and stumbles over them
    ],
)
def test_mlserver_s_refusals_are_told_apart(mlserver: Peer, name: str, word: str, codes: tuple[str, ...]) -> None:
    prediction = mlserver.predict(name, x=[[1.0, 2.5, -3.0]], word=word)
    assert prediction["status"] == "failed"
    assert prediction["routing"]["attempts"][0]["code"] in codes, prediction
    mlserver.well()


@pytest.mark.parametrize("more", [WHOLE, {}], ids=["whole", "streamed"])
def test_a_real_model_writes_and_what_it_used_is_known(litserve: Peer, more: dict[str, Any]) -> None:
    prediction = litserve.predict("peer/writer", prompt="Where is the train", max_tokens=9, **more)
    assert prediction["status"] == "succeeded", (prediction, litserve.process.log[-2000:])
    assert "".join(prediction["output"]) == written("Where is the train", most=9)
    assert len(prediction["output"]) == (1 if more else 9)
    assert prediction["metrics"]["input_token_count"] == 4
    assert prediction["metrics"]["output_token_count"] == 9
    litserve.well()


def test_what_a_real_model_has_written_is_heard_while_it_still_writes(litserve: Peer) -> None:
    go_on = litserve.process.folder / "go-on"
    prompt = "Tell of the signal, and wait"
    with litserve.gateway.client(seconds=30) as client:
        body = {"input": {"prompt": prompt, "max_tokens": 10}, "stream": True}
        created = client.post("/v1/models/peer/writer/predictions", json=body).json()
        heard = ""
        with client.stream("GET", created["urls"]["stream"], headers={"accept": "text/event-stream"}) as stream:
            for text in outputs_in(stream.iter_lines()):
                heard += text
                if heard == written(prompt, most=3):
                    assert client.get(created["urls"]["get"]).json()["status"] == "processing"
                    go_on.touch()
        done = client.get(created["urls"]["get"]).json()
    assert go_on.exists(), f"the first words came too late, or never: {heard!r}"
    assert heard == "".join(done["output"]) == written(prompt, most=10)
    assert len(done["output"]) == done["metrics"]["output_token_count"] == 10
    litserve.well()


def test_a_real_model_embeds_one_text_and_many(litserve: Peer) -> None:
    one = litserve.predict("peer/embedder", input="the train and the line")
    many = litserve.predict("peer/embedder", input=["The line and the train", "a bridge"])
    assert (one["status"], many["status"]) == ("succeeded", "succeeded"), (one, many, litserve.process.log[-2000:])
    vectors = [little.embed("the line and the train"), little.embed("a bridge")]
    assert one["output"] in (vectors[0], vectors[:1])
    assert many["output"] == vectors
    assert vectors[0] != vectors[1]
    litserve.well()


@pytest.mark.parametrize(
    ("name", "input", "code", "said"),
    [
        ("peer/writer", {"prompt": "refuse", **WHOLE}, "input_refused", "it was told to refuse"),
        ("peer/writer", {"prompt": "break", **WHOLE}, "job_failed", "Internal Server Error"),
        ("peer/writer", {"prompt": "x", "temperature": "hot"}, "input_refused", "should be a valid number"),
        ("peer/painter", {"prompt": "x"}, "model_missing", "Not Found"),
        # In a stream, LitServe does not say which status it would have been.
        ("peer/writer", {"prompt": "refuse"}, "job_failed", "it was told to refuse"),
        ("peer/writer", {"prompt": "break"}, "job_failed", "Internal Server Error"),
    ],
)
def test_litserve_s_errors_are_told_apart(
    litserve: Peer, name: str, input: dict[str, Any], code: str, said: str
) -> None:
    prediction = litserve.predict(name, **input)
    assert prediction["status"] == "failed", prediction
    (attempt,) = prediction["routing"]["attempts"]
    assert attempt["code"] == code, prediction
    assert said in attempt["message"]
    litserve.well()


def test_a_real_model_that_stumbles_while_it_writes_has_failed_and_what_it_wrote_is_kept(litserve: Peer) -> None:
    prediction = litserve.predict("peer/writer", prompt="stumble")
    assert prediction["status"] == "failed", prediction
    (attempt,) = prediction["routing"]["attempts"]
    assert (attempt["code"], attempt["message"]) == ("job_failed", "Internal Server Error")
    assert "".join(prediction["output"]) == written("stumble", most=3)
    litserve.well()
