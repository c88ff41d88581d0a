"""`turnout demo`: checks the picture's path and starts the demonstration, which lives in `gateway.demo`."""

from __future__ import annotations

import argparse

from gateway.contract.errors import refuse


def run(options: argparse.Namespace) -> int:
    if options.image is not None and not options.image.is_file():
        raise refuse(
            "there is no such file", place=str(options.image), remedy="name a picture, or none to have one drawn"
        )
    from gateway.demo import run as run_demo

    return run_demo(options.image, keep=options.keep)
