"""
`serving.py PORT`: the little model behind LitServe, as its OpenAI and embedding specifications have it.

A prompt may hold a word that it obeys: "refuse" and "break" end the call, "stumble" ends it in the middle, and at
"wait" it holds still in the middle until a file `go-on` lies in its folder.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import litserve
from fastapi import HTTPException
from litserve.specs.openai import ChatCompletionRequest
from little import Chain, embed, words_of

MOST_WORDS = 12
WAIT_SECONDS = 15.0


class Writer(litserve.LitAPI):
    def setup(self, device: str) -> None:
        self.chain = Chain()

    def predict(self, request: ChatCompletionRequest) -> Iterator[dict[str, Any]]:
        said = request.messages[-1].content
        prompt = said if isinstance(said, str) else " ".join(part.text for part in said)
        told = words_of(prompt)
        if "refuse" in told:
            raise HTTPException(400, "it was told to refuse")
        if "break" in told:
            raise RuntimeError("it was told to break")
        most = request.max_tokens or MOST_WORDS
        # LitServe adds up what comes with the parts of a whole answer, and takes the last part's for a stream.
        usage = {"prompt_tokens": len(told), "completion_tokens": most, "total_tokens": len(told) + most}
        for count, word in enumerate(self.chain.write(prompt, most=most), 1):
            yield {"role": "assistant", "content": word, **(usage if count == most else {})}
            if count == 3 and "stumble" in told:
                raise RuntimeError("it was told to stumble")
            if count == 3 and "wait" in told:
                _await_file(Path("go-on"))


class Embedder(litserve.LitAPI):
    def setup(self, device: str) -> None:
        pass

    def predict(self, text: str | list[str]) -> list[list[float]]:
        return [embed(one) for one in ([text] if isinstance(text, str) else text)]


def _await_file(path: Path) -> None:
    until = time.monotonic() + WAIT_SECONDS
    while not path.exists():
        if time.monotonic() > until:
            raise RuntimeError("nobody let it go on")
        time.sleep(0.02)  # within its bound: this process has packages of its own, and not the tests


if __name__ == "__main__":
    apis = [Writer(spec=litserve.OpenAISpec()), Embedder(spec=litserve.OpenAIEmbeddingSpec())]
    litserve.LitServer(apis, accelerator="cpu").run(
        host="127.0.0.1", port=int(sys.argv[1]), num_api_servers=1, generate_client_file=False
    )
