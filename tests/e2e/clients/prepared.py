"""
The official clients and real servers that cannot live in our virtual environment, in folders of their own under
`.clients/`.

`python -m tests.e2e.clients.prepared` makes them ready; tests do so too where they are missing. Runs no test.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

PYTHON2 = "2.0.0b4"
NPM = "1.4.0"
# The vendors' own clients, which are pointed at our fakes of them. One environment: they bear with each other.
VENDORS = {
    "boto3": "1.44.5",
    "cloudflare": "5.9.0",
    "elevenlabs": "2.78.0",
    "fal-client": "1.0.3",
    "fireworks-ai": "1.2.28",
    "google-genai": "3.4.0",
    "huggingface_hub": "1.33.0",
    "lumaai": "1.21.0",
    "openai": "2.54.0",
    "runpod": "1.12.0",
    "runwayml": "5.24.0",
    "together": "3.1.1",
    "tritonclient[http]": "2.73.0",
}
# Real servers of dialects that we speak.
LITELLM = {"litellm[proxy]": "1.106.2"}
MLSERVER = {"mlserver": "1.7.1"}
LITSERVE = {"litserve": "0.2.19"}
ROOT = Path(__file__).parents[3] / ".clients"
HERE = Path(__file__).parent
# Set where their absence must not pass unnoticed, as in .ci/run.
REQUIRED = "TURNOUT_REQUIRE_CLIENTS"
_MAKE_SECONDS = 300


class NotPrepared(Exception):
    """A client could not be made ready; the text says why."""


def python2() -> Path:
    """The folder for PYTHONPATH. Raises NotPrepared."""
    return _installed("python2", {"replicate": PYTHON2})


def vendors() -> Path:
    """The folder for PYTHONPATH that has the vendors' clients. Raises NotPrepared."""
    return _installed("vendors", VENDORS)


def litellm() -> Path:
    """The folder for PYTHONPATH that has LiteLLM's proxy. Raises NotPrepared."""
    return _installed("litellm", LITELLM)


def mlserver() -> Path:
    """The folder for PYTHONPATH that has MLServer. Raises NotPrepared."""
    return _installed("mlserver", MLSERVER)


def litserve() -> Path:
    """The folder for PYTHONPATH that has LitServe. Raises NotPrepared."""
    return _installed("litserve", LITSERVE)


def npm() -> Path:
    """The folder that has node_modules in it. Raises NotPrepared."""
    folder = ROOT / "npm"
    if shutil.which("node") is None:
        raise NotPrepared("this machine has no Node.js")
    package = folder / "node_modules" / "replicate" / "package.json"
    if not package.exists() or json.loads(package.read_text())["version"] != NPM:
        _make(["npm", "install", "--silent", "--no-audit", "--no-fund", "--prefix", str(folder), f"replicate@{NPM}"])
    return folder


def _installed(name: str, packages: Mapping[str, str]) -> Path:
    """A folder with these and what they need, made anew if it is not the one that was asked for."""
    folder = ROOT / f"{name}-{sys.implementation.cache_tag}"  # they bring compiled parts
    wanted = sorted(f"{package}=={version}" for package, version in packages.items())
    made = folder / "made-of.json"  # written last: a folder that was left half made is none
    if not made.exists() or json.loads(made.read_text()) != wanted:
        shutil.rmtree(folder, ignore_errors=True)
        pip = [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-compile"]
        _make([*pip, "--target", str(folder), *wanted])
        made.write_text(json.dumps(wanted))
    return folder


def _make(command: list[str]) -> None:
    ROOT.mkdir(exist_ok=True)
    try:
        subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True, timeout=_MAKE_SECONDS)
    except FileNotFoundError:
        raise NotPrepared(f"this machine has no {command[0]}") from None
    except subprocess.TimeoutExpired:
        raise NotPrepared(f"{command[0]} took longer than {_MAKE_SECONDS} s") from None
    except subprocess.CalledProcessError as error:
        said = (error.stderr or error.stdout).strip()[-500:]
        raise NotPrepared(f"{Path(command[0]).name} could not install it: {said}") from None


class Script:
    """One of the scripts beside this file, run with a client: `script("run", image=…)` is what it printed, as JSON."""

    def __init__(self, command: list[str], *, environ: Mapping[str, str]) -> None:
        self._command = command
        kept = {name: os.environ[name] for name in ("PATH", "HOME", "LANG") if name in os.environ}
        self._environ = kept | dict(environ)

    def __call__(self, scenario: str, **arguments: Any) -> Any:
        ended = subprocess.run(
            [*self._command, scenario, json.dumps(arguments)],
            env=self._environ,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=18,
            check=False,
        )
        assert ended.returncode == 0, f"{scenario}: {ended.stderr[-4000:]}"
        return json.loads(ended.stdout)


def main() -> int:
    with ThreadPoolExecutor(3) as pool:  # they wait for the network most of the time
        making = [pool.submit(make) for make in (litellm, vendors, mlserver, litserve, python2, npm)]
    try:
        for made in making:
            sys.stdout.write(f"{made.result()}\n")
    except NotPrepared as reason:
        sys.stderr.write(f"{reason}\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
