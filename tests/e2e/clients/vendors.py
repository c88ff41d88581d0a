"""
The vendors' official clients, one function each, at the fakes of their providers. Each tells what it understood.

Run with the folder of `prepared.vendors()` on the path, as `vendors.py CLIENT {"at": …, "key": …}`: `at` names fakes
by what is to be asked there, and "refusing" is one that refuses every submit. Judges nothing: the test does.
"""

from __future__ import annotations

import base64
import io
import json
import sys
import time
from collections.abc import Callable
from typing import Any

At = dict[str, str]
TRIES = 20  # polls; fakes go one step on with each


def error_of(call: Callable[[], object]) -> list[Any]:
    """The class of what it raises, the classes above it, and the status it knows."""
    try:
        said = call()
    except Exception as error:  # whatever it is: that is what is asked
        names = [kind.__name__ for kind in type(error).__mro__ if kind not in (object, BaseException, Exception)]
        response = getattr(error, "response", None)
        status = (
            getattr(error, "status_code", None)
            or getattr(response, "status_code", None)
            or getattr(error, "code", None)
        )
        if isinstance(response, dict):
            status = response.get("ResponseMetadata", {}).get("HTTPStatusCode")
        return [names, status, str(error)[:300]]
    return [["none"], None, repr(said)[:300]]


def until(ask: Callable[[], Any], is_over: Callable[[Any], bool]) -> tuple[Any, list[Any]]:
    """The last answer, and all of them."""
    seen = []
    for _ in range(TRIES):
        seen.append(ask())
        if is_over(seen[-1]):
            break
        time.sleep(0.01)  # as every caller of a queue has to; at most TRIES times
    return seen[-1], seen


def fal(at: At, key: str) -> dict[str, Any]:
    import fal_client
    from fal_client import client as inside

    def client(url: str) -> Any:
        inside.QUEUE_URL_FORMAT = f"{url}/"  # it takes a host, and adds https:// to it
        return fal_client.SyncClient(key=key)

    input = {"prompt": "a cat", "image_size": "square_hd", "num_images": 1}
    handle = client(at["queue"]).submit("fal-ai/flux/dev", arguments=input)
    events = [type(event).__name__ for event in handle.iter_events(with_logs=True, interval=0.01)]
    other = client(at["queue"]).submit("fal-ai/flux/dev", arguments=input)
    other.cancel()
    rebuilt = client(at["queue"]).status("fal-ai/flux/dev", other.request_id)  # by the path that it builds itself
    return {
        "id": handle.request_id,
        "events": events,
        "result": handle.get(),
        "canceled": other.request_id,
        "after": type(rebuilt).__name__,
        "error": error_of(lambda: client(at["refusing"]).submit("fal-ai/flux/dev", arguments=input)),
    }


def huggingface(at: At, key: str) -> dict[str, Any]:
    from huggingface_hub import InferenceClient

    def hear(url: str) -> Any:
        place = f"{url}/hf-inference/models/openai/whisper-large-v3"
        return InferenceClient(token=key).automatic_speech_recognition(b"ID3\x04\x00", model=place)

    chat = InferenceClient(base_url=f"{at['chat']}/v1", token=key)
    chunks = list(chat.chat_completion([{"role": "user", "content": "Hello"}], model="a/model", stream=True))
    return {
        "heard": hear(at["speech"]).text,
        "text": "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices),
        "error": error_of(lambda: hear(at["refusing"])),
    }


def openai(at: At, key: str) -> dict[str, Any]:
    from openai import OpenAI

    def client(url: str) -> OpenAI:
        return OpenAI(base_url=url, api_key=key, max_retries=0)

    def picture(url: str) -> Any:
        return client(url).images.generate(model="gpt-image-1.5", prompt="A cute baby sea otter", n=1, size="1024x1024")

    speech = client(at["speech"]).audio.speech.create(
        model="gpt-4o-mini-tts", input="The quick brown fox", voice="alloy", stream_format="sse"
    )
    vector = client(at["embedding"]).embeddings.create(
        model="text-embedding-3-small", input="The food was delicious", encoding_format="float"
    )
    transcript = client(at["transcript"]).audio.transcriptions.create(
        model="gpt-4o-transcribe", file=("a.mp3", b"ID3\x04\x00", "audio/mpeg")
    )
    films = client(at["video"]).videos
    film = films.create(model="sora-2", prompt="A calico cat playing a piano on stage", seconds="8")
    last, seen = until(lambda: films.retrieve(film.id), lambda video: video.status in ("completed", "failed"))
    chunks = client(at["chat"]).chat.completions.create(
        model="gpt-5.4", messages=[{"role": "user", "content": "Hello"}], stream=True
    )
    return {
        "picture": picture(at["picture"]).data[0].b64_json,
        "speech": base64.b64encode(speech.read()).decode(),
        "vector": vector.data[0].embedding,
        "transcript": transcript.text,
        "film": {"id": film.id, "states": [film.status, *(video.status for video in seen)], "last": last.id},
        "bytes": len(films.download_content(film.id).read()),
        "text": "".join(c.choices[0].delta.content or "" for c in chunks if c.choices),
        "error": error_of(lambda: picture(at["refusing"])),
        "quota": error_of(lambda: picture(at["broke"])),
        "refused": error_of(lambda: picture(at["moderating"])),
    }


def azure(at: At, key: str) -> dict[str, Any]:
    from openai import AzureOpenAI

    def client(url: str, version: str) -> AzureOpenAI:
        return AzureOpenAI(azure_endpoint=url, api_version=version, api_key=key, max_retries=0)

    def picture(url: str) -> Any:
        images = client(url, "2025-04-01-preview").images
        return images.generate(model="my-image-deployment", prompt="a cat", n=1, size="1024x1024")

    chunks = client(at["chat"], "2024-10-21").chat.completions.create(
        model="my/gpt x", messages=[{"role": "user", "content": "Hello"}], stream=True
    )
    return {
        "picture": picture(at["picture"]).data[0].b64_json,
        "text": "".join(c.choices[0].delta.content or "" for c in chunks if c.choices),
        "error": error_of(lambda: picture(at["refusing"])),
        "filtered": error_of(lambda: picture(at["moderating"])),
    }


def deepinfra(at: At, key: str) -> dict[str, Any]:
    from openai import OpenAI

    def client(url: str) -> OpenAI:
        return OpenAI(base_url=f"{url}/v1/openai", api_key=key, max_retries=0)

    def picture(url: str) -> Any:
        return client(url).images.generate(
            model="black-forest-labs/FLUX-1-schnell", prompt="A photo", n=1, size="1024x1024"
        )

    def talk(url: str, model: str, **more: Any) -> Any:
        return client(url).chat.completions.create(model=model, messages=[{"role": "user", "content": "Hello"}], **more)

    said = talk(at["chat"], "meta-llama/Meta-Llama-3.1-8B-Instruct")
    chunks = list(talk(at["stream"], "m/m", stream=True, stream_options={"include_usage": True}))
    return {
        "text": said.choices[0].message.content,
        "cost": said.usage.model_extra["estimated_cost"],
        "streamed": "".join(c.choices[0].delta.content or "" for c in chunks if c.choices),
        "tokens": chunks[-1].usage.completion_tokens,
        "picture": picture(at["picture"]).data[0].b64_json,
        "error": error_of(lambda: talk(at["refusing"], "m/m")),
        "broke": error_of(lambda: picture(at["broke"])),
    }


def together(at: At, key: str) -> dict[str, Any]:
    from together import Together

    def client(url: str) -> Any:
        return Together(api_key=key, base_url=url, max_retries=0)

    def picture(url: str) -> Any:
        return client(url).images.generate(
            model="black-forest-labs/FLUX.1-kontext-pro",
            prompt="make it night",
            image_url="https://pictures.example/in.png",
            response_format="url",
        )

    films = client(at["video"]).videos
    film = films.create(model="minimax/hailuo-02", prompt="x")
    last, seen = until(lambda: films.retrieve(film.id), lambda video: video.status in ("completed", "failed"))
    return {
        "picture": picture(at["picture"]).data[0].url,
        "vector": client(at["embedding"]).embeddings.create(model="e5", input="x").data[0].embedding,
        "film": {"states": [film.status, *(one.status for one in seen)], "url": last.outputs.video_url},
        "error": error_of(lambda: picture(at["refusing"])),
    }


def elevenlabs(at: At, key: str) -> dict[str, Any]:
    from elevenlabs.client import ElevenLabs

    def client(url: str) -> Any:
        return ElevenLabs(api_key=key, base_url=url)

    def speak(url: str) -> bytes:
        return b"".join(
            client(url).text_to_speech.convert(
                "JBFqnCBsd6RMkjVDRZzb",
                text="Hi!",
                model_id="eleven_multilingual_v2",
                output_format="mp3_44100_128",
                request_options={"max_retries": 0},
            )
        )

    dubbing = client(at["dubbing"]).dubbing
    job = dubbing.create(file=("a.mp3", b"ID3\x04\x00", "audio/mpeg"), target_lang="es", source_lang="auto")
    last, seen = until(lambda: dubbing.get(job.dubbing_id), lambda one: one.status != "dubbing")
    return {
        "speech": base64.b64encode(speak(at["speech"])).decode(),
        "dubbing": {"id": job.dubbing_id, "states": [one.status for one in seen], "last": last.dubbing_id},
        "dubbed": base64.b64encode(b"".join(dubbing.audio.get(job.dubbing_id, "es"))).decode(),
        "error": error_of(lambda: speak(at["refusing"])),
    }


def runway(at: At, key: str) -> dict[str, Any]:
    from runwayml import RunwayML

    def client(url: str) -> Any:
        return RunwayML(api_key=key, base_url=url, max_retries=0)

    def film(url: str) -> Any:
        return client(url).image_to_video.create(
            model="gen4_turbo",
            prompt_image="https://example.com/in.jpg",
            prompt_text="a bunny",
            ratio="1280:720",
            duration=5,
        )

    task, tasks = film(at["film"]), client(at["film"]).tasks
    last, seen = until(lambda: tasks.retrieve(task.id), lambda one: one.status in ("SUCCEEDED", "FAILED"))
    other = film(at["film"])
    tasks.delete(other.id)
    return {
        "id": task.id,
        "states": [one.status for one in seen],
        "output": last.output,
        "canceled": other.id,
        "error": error_of(lambda: film(at["refusing"])),
    }


def luma(at: At, key: str) -> dict[str, Any]:
    from lumaai import LumaAI

    def client(url: str) -> Any:
        return LumaAI(auth_token=key, base_url=url, max_retries=0)

    def film(url: str) -> Any:
        return client(url).generations.create(
            model="ray-2", prompt="A serene lake surrounded by mountains at sunset", aspect_ratio="16:9", loop=True
        )

    job, generations = film(at["film"]), client(at["film"]).generations
    last, seen = until(lambda: generations.get(job.id), lambda one: one.state in ("completed", "failed"))
    return {
        "id": job.id,
        "states": [job.state, *(one.state for one in seen)],
        "video": last.assets.video,
        "error": error_of(lambda: film(at["refusing"])),
    }


def _begin_film(url: str, key: str) -> str:
    import urllib.request

    request = urllib.request.Request(
        f"{url}/v1beta/models/veo-3.1-generate-preview:predictLongRunning",
        data=b'{"instances": [{"prompt": "x"}]}',
        headers={"x-goog-api-key": key, "content-type": "application/json"},
    )
    with urllib.request.urlopen(request) as answer:
        return str(json.loads(answer.read())["name"])


def google(at: At, key: str) -> dict[str, Any]:
    from google import genai

    def client(url: str) -> Any:
        return genai.Client(api_key=key, http_options={"base_url": url, "api_version": "v1beta"})

    def say(url: str, model: str, text: str) -> Any:
        at_work = client(url)  # it closes its connections when nobody holds it
        return at_work.models.generate_content(model=model, contents=text)

    text = say(at["text"], "gemini-2.5-flash", "hi")
    picture = say(at["picture"], "gemini-2.5-flash-image", "a cat")
    films = client(at["film"])
    # This version of it starts films at Vertex AI only; it still knows how to ask the Gemini API for one.
    job = genai.types.GenerateVideosOperation(name=_begin_film(at["film"], key))
    last, seen = until(lambda: films.operations.get(job), lambda one: one.done)
    return {
        "text": text.text,
        "tokens": text.usage_metadata.candidates_token_count,
        "picture": base64.b64encode(picture.candidates[0].content.parts[0].inline_data.data).decode(),
        "operation": job.name,
        "done": [bool(one.done) for one in seen],
        "film": last.response.generated_videos[0].video.uri,
        "error": error_of(lambda: say(at["refusing"], "gemini-2.5-flash", "hi")),
    }


def runpod(at: At, key: str) -> dict[str, Any]:
    import runpod as client

    client.api_key = key

    def endpoint(url: str) -> Any:
        client.endpoint_url_base = url
        return client.Endpoint("abc123xyz")

    job = endpoint(at["queue"]).run({"input": {"prompt": "Hello, world!"}})
    last, seen = until(job.status, lambda state: state in ("COMPLETED", "FAILED"))
    other = endpoint(at["queue"]).run({"input": {"prompt": "Hello, world!"}})
    return {
        "id": job.job_id,
        "states": seen,
        "output": job.output(),
        "canceled": other.job_id,
        "cancel": other.cancel(),
        "error": error_of(lambda: endpoint(at["refusing"]).run({"input": {"prompt": "Hello, world!"}})),
        "last": last,
    }


def bedrock(at: At, key: str) -> dict[str, Any]:
    import boto3
    from botocore.config import Config

    def client(url: str, region: str) -> Any:
        id, _, secret = key.partition(":")
        return boto3.client(
            "bedrock-runtime",
            endpoint_url=url,
            region_name=region,
            aws_access_key_id=id,
            aws_secret_access_key=secret,
            config=Config(retries={"total_max_attempts": 1}),
        )

    def talk(url: str) -> Any:
        return client(url, "us-east-1").converse(
            modelId="us.amazon.nova-lite-v1:0",
            messages=[{"role": "user", "content": [{"text": "How many r's?"}]}],
            system=[{"text": "Be brief."}],
            inferenceConfig={"maxTokens": 9},
        )

    films = client(at["film"], "eu-west-1")
    job = films.start_async_invoke(
        modelId="amazon.nova-reel-v1:0",
        modelInput={"taskType": "TEXT_VIDEO"},
        outputDataConfig={"s3OutputDataConfig": {"s3Uri": "s3://clips/a/b"}},
        clientRequestToken="a" * 26,
    )
    arn = job["invocationArn"]
    _, seen = until(lambda: films.get_async_invoke(invocationArn=arn), lambda one: one["status"] != "InProgress")
    said = talk(at["talk"])
    return {
        "text": said["output"]["message"]["content"][0]["text"],
        "tokens": said["usage"]["outputTokens"],
        "arn": arn,
        "states": [one["status"] for one in seen],
        "place": seen[-1]["outputDataConfig"]["s3OutputDataConfig"]["s3Uri"],
        "error": error_of(lambda: talk(at["refusing"])),
    }


def kserve(at: At, key: str) -> dict[str, Any]:
    import numpy as np
    from tritonclient import http

    def infer(url: str, *, binary: bool, version: str = "") -> Any:
        client = http.InferenceServerClient(url.removeprefix("http://"))
        tensor = http.InferInput("input0", [2, 2], "UINT32")
        tensor.set_data_from_numpy(np.array([[1, 2], [3, 4]], dtype=np.uint32), binary_data=binary)
        wanted = http.InferRequestedOutput("output0", binary_data=binary)
        said = client.infer(
            "mymodel", [tensor], model_version=version, outputs=[wanted], headers={"authorization": f"Bearer {key}"}
        )
        return said.as_numpy("output0").tolist()

    return {
        "json": infer(at["json"], binary=False),
        "binary": infer(at["binary"], binary=True, version="3"),
        "error": error_of(lambda: infer(at["refusing"], binary=False)),
    }


def cloudflare(at: At, key: str) -> dict[str, Any]:
    from cloudflare import Cloudflare

    def speak(url: str) -> Any:
        client = Cloudflare(api_token=key, base_url=url, max_retries=0)
        return client.ai.run("@cf/myshell-ai/melotts", account_id="ACCOUNT", prompt="hello")

    return {"speech": speak(at["speech"]), "error": error_of(lambda: speak(at["refusing"]))}


def fireworks(at: At, key: str) -> dict[str, Any]:
    from fireworks import Fireworks

    def talk(url: str) -> Any:
        client = Fireworks(api_key=key, base_url=url, max_retries=0)
        return client.chat.completions.create(
            model="accounts/fireworks/models/llama-v3p1-8b-instruct", messages=[{"role": "user", "content": "Hello"}]
        )

    said = talk(at["chat"])
    return {
        "text": said.choices[0].message.content,
        "tokens": said.usage.completion_tokens,
        "error": error_of(lambda: talk(at["refusing"])),
    }


if __name__ == "__main__":
    said = io.StringIO()
    sys.stdout, shown = said, sys.stdout  # what clients print is not the answer
    result = globals()[sys.argv[1]](**json.loads(sys.argv[2]))
    shown.write(json.dumps(result, default=str))
