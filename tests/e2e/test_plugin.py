"""Somebody else's provider, from a folder to a served prediction: built, installed, listed, checked, proven, used."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.gateway_process import GatewayProcess

EXAMPLE = Path(__file__).parents[1] / "plugin_example"
PNG = b"\x89PNG\r\n\x1a\n" + b"\0" * 24
CATALOGUE = """
[[models]]
name = "acme/painter"
task = "text-to-image"
output = "file"
description = "Paints what it is told."

[models.input]
prompt = { type = "string", required = true }
format = { type = "string", enum = ["wide", "square"], default = "square" }

[[models.offers]]
adapter = "acme"
name = "painter-1"
price = { per_image = "0.03" }
input.spread.format.wide = { width = 16, height = 9 }
input.spread.format.square = {}
"""

pytestmark = pytest.mark.timeout(120)  # pip is started twice, on a machine that may be busy


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder into which the example is installed as anybody would: a wheel is built of it, and no index asked."""
    folder = tmp_path_factory.mktemp("plugin")
    source = shutil.copytree(EXAMPLE, folder / "source", ignore=shutil.ignore_patterns("__pycache__"))
    quiet = ("--quiet", "--disable-pip-version-check", "--no-deps", "--no-index")
    pip("wheel", *quiet, "--no-build-isolation", "--wheel-dir", str(folder / "dist"), str(source))
    (wheel,) = (folder / "dist").glob("acme_turnout-1.0.0-*.whl")
    pip("install", *quiet, "--target", str(folder / "site"), str(wheel))
    return folder / "site"


def pip(*words: str) -> None:
    done = subprocess.run([sys.executable, "-m", "pip", *words], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def run(*command: str, site: Path, cwd: Path, **environ: str) -> subprocess.CompletedProcess[str]:
    kept = {name: os.environ[name] for name in ("PATH", "HOME") if name in os.environ}
    environ = kept | {"PYTHONPATH": str(site), "PYTHONDONTWRITEBYTECODE": "1"} | environ
    return subprocess.run(
        [sys.executable, *command], cwd=cwd, env=environ, capture_output=True, text=True, timeout=60, check=False
    )


class Acme:
    """The API of a vendor that nobody has heard of: a job is waiting when it is new, and done when it is asked for."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, str, str]] = []  # method, path, authorization
        self.bodies: list[dict[str, Any]] = []
        acme = self

        class Door(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                acme.bodies.append(json.loads(self.rfile.read(int(self.headers["content-length"]))))
                self.say(201, {"id": f"job-{len(acme.bodies)}", "state": "waiting"})

            def do_GET(self) -> None:
                if self.path.startswith("/pictures/"):
                    self.say(200, PNG, "image/png")
                else:
                    id = self.path.rpartition("/")[2]
                    self.say(200, {"id": id, "state": "done", "picture": f"{acme.url}/pictures/{id}.png", "cents": 3})

            def say(self, status: int, body: Any, content_type: str = "application/json") -> None:
                acme.asked.append((self.command, self.path, self.headers.get("authorization", "")))
                content = body if isinstance(body, bytes) else json.dumps(body).encode()
                self.send_response(status)
                self.send_header("content-type", content_type)
                self.send_header("content-length", str(len(content)))
                self.end_headers()
                self.wfile.write(content)

            def log_message(self, format: str, *args: Any) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Door)
        self.server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self.server.server_address[1]}"


@pytest.fixture
def acme() -> Iterator[Acme]:
    vendor = Acme()
    thread = threading.Thread(target=vendor.server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    yield vendor
    vendor.server.shutdown()
    vendor.server.server_close()
    thread.join()


def config(acme_url: str) -> str:
    return f"""
[local]
enabled = false
[catalogue]
files = ["acme.toml"]
[providers.acme]
base_url = "{acme_url}"
token = "env:ACME_API_KEY"
catalogue = true
options = {{ studio = "attic" }}
"""


def test_it_is_listed_with_its_package(site: Path, tmp_path: Path) -> None:
    listed = run("-m", "gateway", "plugins", "--json", site=site, cwd=tmp_path)
    assert listed.returncode == 0, listed.stderr
    (acme,) = (plugin for plugin in json.loads(listed.stdout)["plugins"] if plugin["name"] == "acme")
    assert (acme["distribution"], acme["version"]) == ("acme-turnout", "1.0.0")
    assert acme["credentials"] == [["ACME_API_KEY"]]
    assert (acme["cancel"], acme["cost"], acme["wrong"]) == ("queued_only", "money", "")


def test_a_configuration_with_it_is_checked_and_faults_are_told(site: Path, tmp_path: Path) -> None:
    (tmp_path / "acme.toml").write_text(CATALOGUE)
    (tmp_path / "turnout.toml").write_text(config("https://acme.internal"))
    checked = run("-m", "gateway", "check", site=site, cwd=tmp_path, ACME_API_KEY="canary")
    assert checked.returncode == 0, checked.stderr
    assert "https://acme.internal" in checked.stdout
    assert "and 1 model of the catalogue" in checked.stdout
    (tmp_path / "turnout.toml").write_text(config("https://acme.internal").replace("studio", "stduio"))
    refused = run("-m", "gateway", "check", site=site, cwd=tmp_path, ACME_API_KEY="canary")
    assert refused.returncode == 2
    assert "unknown key 'stduio'; did you mean 'studio'?" in refused.stderr
    assert "canary" not in checked.stdout + refused.stderr


def test_its_key_in_the_environment_is_all_it_takes(site: Path, tmp_path: Path) -> None:
    (tmp_path / "acme.toml").write_text(CATALOGUE)
    (tmp_path / "turnout.toml").write_text('[catalogue]\nfiles = ["acme.toml"]\n')
    listed = run("-m", "gateway", "models", "acme", site=site, cwd=tmp_path, ACME_API_KEY="canary")
    assert "1 of 1 models" in listed.stdout, listed.stderr
    without = run("-m", "gateway", "models", "acme", site=site, cwd=tmp_path)
    assert "set ACME_API_KEY" in without.stdout


def test_its_recordings_are_played_against_what_was_installed(site: Path, tmp_path: Path) -> None:
    shutil.copy(EXAMPLE / "test_acme_turnout.py", tmp_path)
    shutil.copytree(EXAMPLE / "recordings", tmp_path / "recordings")
    played = run("-m", "pytest", "-q", "-p", "no:cacheprovider", "test_acme_turnout.py", site=site, cwd=tmp_path)
    assert played.returncode == 0, played.stdout
    assert "11 passed" in played.stdout


def test_a_gateway_serves_a_prediction_through_it(site: Path, acme: Acme, tmp_path: Path) -> None:
    tmp_path.joinpath("acme.toml").write_text(CATALOGUE)
    environ = {"PYTHONPATH": str(site), "ACME_API_KEY": "acme-canary"}
    with GatewayProcess(tmp_path, config(acme.url), environ=environ) as gateway, gateway.client() as client:
        model = client.get("/v1/models/acme/painter").json()
        properties = model["latest_version"]["openapi_schema"]["components"]["schemas"]["Input"]["properties"]
        assert list(properties) == ["prompt", "format"]
        refused = client.post("/v1/models/acme/painter/predictions", json={"input": {"format": "round"}})
        assert refused.status_code == 422, refused.text
        created = client.post(
            "/v1/models/acme/painter/predictions",
            json={"input": {"prompt": "a cat", "format": "wide", "unknown": 1}},
            headers={"prefer": "wait=20"},
        )
        prediction = created.json()
        assert prediction["status"] == "succeeded", prediction
        assert prediction["output"].startswith(gateway.url), "in our keeping"
        assert client.get(prediction["output"]).content == PNG
        assert prediction["routing"]["provider"] == "acme"
        assert prediction["routing"]["cost"] == {"amount": "0.03", "basis": "reported", "currency": "USD"}
        assert "acme-canary" not in gateway.log
    assert acme.bodies == [{"model": "painter-1", "studio": "attic", "prompt": "a cat", "width": 16, "height": 9}]
    jobs = [authorization for _, path, authorization in acme.asked if path.startswith("/jobs")]
    assert set(jobs) == {"Bearer acme-canary"}
    pictures = [authorization for _, path, authorization in acme.asked if path.startswith("/pictures")]
    assert pictures == [""], "a result is fetched without the key"


@pytest.mark.parametrize(
    ("planted", "said"),
    [
        ("import no_such_module_at_all\n", "it cannot be loaded (ModuleNotFoundError: No module named"),
        (
            "class Acme:\n    spec_version = 99\n    def __init__(self, *a): pass\n",
            "it speaks version 99 of the adapter",
        ),
        ("class Acme:\n    def __init__(self, *a): raise OSError('no licence')\n", "it cannot be made (OSError: no"),
    ],
)
def test_a_broken_one_is_refused_in_one_line(planted: str, said: str, site: Path, tmp_path: Path) -> None:
    broken = shutil.copytree(site, tmp_path / "site")
    (broken / "acme_turnout.py").write_text(planted)
    (tmp_path / "acme.toml").write_text(CATALOGUE)
    (tmp_path / "turnout.toml").write_text(config("https://acme.internal"))
    for command in (("check",), ("serve", "--port", "0")):
        refused = run("-m", "gateway", *command, site=broken, cwd=tmp_path, ACME_API_KEY="canary")
        assert refused.returncode == 2, refused.stdout
        (line,) = refused.stderr.splitlines()
        assert said in line
        assert "turnout.toml:6: providers.acme: adapter acme of acme-turnout:" in line
    listed = run("-m", "gateway", "plugins", site=broken, cwd=tmp_path)
    assert listed.returncode == 1
    assert said in listed.stdout
    (tmp_path / "turnout.toml").write_text('[catalogue]\nfiles = ["acme.toml"]\n')
    others = run("-m", "gateway", "models", "acme", site=broken, cwd=tmp_path, ACME_API_KEY="canary")
    assert others.returncode == 0, "nobody who did not ask for it is kept from anything"
