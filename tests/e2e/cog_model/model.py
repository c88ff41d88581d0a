"""A model small enough to see through, for a real Cog server: says words, fails, or waits until it is told to go on."""

import socket
from collections.abc import Iterator

from cog import BaseRunner, ConcatenateIterator, Input, current_scope, streaming


class Runner(BaseRunner):
    @streaming
    def run(
        self,
        text: str = Input(description="what to say"),
        mode: str = Input(default="say", choices=["say", "raise", "meet"]),
        port: int = Input(
            default=0, description="where to meet: the prediction waits there for a byte", ge=0, le=65535
        ),
    ) -> ConcatenateIterator[str]:
        print(f"asked for {text}")
        if mode == "raise":
            raise ValueError("CUDA out of memory (pretended)")
        if mode == "meet":
            meet(port)
        current_scope().record_metric("words", len(text.split()))
        yield from spoken(text)


def spoken(text: str) -> Iterator[str]:
    for word in text.split():
        yield word.upper()


def meet(port: int) -> None:
    with socket.create_connection(("127.0.0.1", port)) as connection:
        # In slices: an interruption is noticed between them, not inside a call that waits for ever.
        connection.settimeout(0.02)
        while True:
            try:
                connection.recv(1)
                return
            except TimeoutError:
                continue
