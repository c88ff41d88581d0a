"""`turnout keys new`: makes a key and shows it once. Keeps nothing: the caller has the key, we have its hash."""

from __future__ import annotations

import argparse
import re
import sys

from gateway.contract.errors import refuse
from gateway.contract.key import new_key


def run(options: argparse.Namespace) -> int:
    name = options.name
    if re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_-]{0,63}", name) is None:
        raise refuse(f"{name[:80]!r} is no name", place="--name", remedy="use letters, digits, _ and -, at most 64")
    key = new_key(re.sub(r"[^a-z0-9-]", "-", name.lower()))
    # The key alone goes to standard output: `KEY=$(turnout keys new)` must work, and show the rest.
    sys.stderr.write("The key, shown this once (send it as `Authorization: Bearer …`):\n\n")
    sys.stderr.flush()
    sys.stdout.write(f"{key.text}\n")
    sys.stdout.flush()
    sys.stderr.write(f'\nPaste this into the configuration:\n\n[keys.{name}]\nhash = "{key.hash}"\n')
    return 0
