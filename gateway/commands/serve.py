"""`turnout serve`: reads the configuration and hands it to the application. Knows nothing of how that is built."""

from __future__ import annotations

import argparse
import gc
import os

from gateway.commands.folder import check_folders
from gateway.commands.supply import load
from gateway.contract.errors import ConfigurationError, refuse


def run(options: argparse.Namespace) -> int:
    # What is made at the start stays: to look for garbage in it again and again would only delay the first answer.
    gc.disable()
    try:
        return _serve(options)
    finally:
        gc.enable()


def _serve(options: argparse.Namespace) -> int:
    # First the configuration, which is quick to refuse, then the application, which takes a second to import.
    loaded = load(options.config, environ=os.environ)
    wrong = check_folders(loaded)
    count = options.workers or loaded.config.server.workers
    if count > 1 and loaded.store_path is not None:
        remedy = 'use Redis: url = "redis://HOST:PORT/0" in [store]; or serve with one'
        wrong.append(
            str(refuse(f"{count} workers cannot share SQLite", place=loaded.where("store", "url"), remedy=remedy))
        )
    if wrong:
        raise ConfigurationError("\n".join(wrong))
    if options.as_worker:
        from gateway.app import work

        return work(loaded)
    if count > 1:
        from gateway.workers import crew_of

        crew = crew_of(loaded, host=options.host, port=options.port, count=count, config=options.config)
        del loaded  # with all its secrets
        return crew.run()
    from gateway.app import serve

    return serve(loaded, host=options.host, port=options.port)
