"""`turnout serve`: reads the configuration and hands it to the application. Knows nothing of how that is built."""

from __future__ import annotations

import argparse
import os

from gateway.commands.folder import check_folders
from gateway.commands.supply import load
from gateway.contract.errors import ConfigurationError


def run(options: argparse.Namespace) -> int:
    # First the configuration, which is quick to refuse, then the application, which takes a second to import.
    loaded = load(options.config, environ=os.environ)
    wrong = check_folders(loaded)
    if wrong:
        raise ConfigurationError("\n".join(wrong))
    from gateway.app import serve

    return serve(loaded, host=options.host, port=options.port)
