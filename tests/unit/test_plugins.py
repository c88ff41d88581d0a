"""Adapters come in by entry point, ours through the same door as others', and a bad one is one line."""

from __future__ import annotations

import sys
from importlib.metadata import version
from pathlib import Path

import pytest

from gateway.contract.errors import ConfigurationError
from gateway.contract.provider import Adapter
from gateway.plugins import installed_adapters, load_adapter

ROOT = Path(__file__).parents[2]
# One public file per vendor: the folder is the list.
OURS = tuple(sorted(path.stem for path in (ROOT / "providers").glob("[a-z]*.py")))


@pytest.fixture
def install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Puts a distribution with one adapter on the path, as pip would."""

    modules = set(sys.modules)

    def put(distribution: str, name: str, source: str, *, target: str = "Acme") -> None:
        site, module = tmp_path / distribution, f"{distribution}_module"
        folder = site / f"{distribution}-1.2.3.dist-info"
        folder.mkdir(parents=True)
        (folder / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {distribution}\nVersion: 1.2.3\n")
        (folder / "entry_points.txt").write_text(f"[turnout.adapters]\n{name} = {module}:{target}\n")
        (site / f"{module}.py").write_text(source)
        monkeypatch.syspath_prepend(str(site))

    yield put
    for module in set(sys.modules) - modules:
        if module.endswith("_dist_module"):
            del sys.modules[module]


GOOD = "from providers.replicate import Replicate\nclass Acme(Replicate):\n    pass\n"


@pytest.mark.parametrize("name", OURS)
def test_our_own_adapters_come_by_the_same_door(name: str) -> None:
    adapter = load_adapter(name, {}, provider="mine")
    assert isinstance(adapter, Adapter)
    assert adapter.name == "mine"
    assert load_adapter(name).name == name


def test_every_installed_adapter_is_listed_with_who_brought_it(install) -> None:
    install("acme_dist", "acme", "raise RuntimeError('listing must not load')")
    found = installed_adapters()
    assert [adapter.name for adapter in found] == sorted(["acme", *OURS])
    assert found[0] == ("acme", "acme_dist", "1.2.3")
    assert ("cog", "turnout", version("turnout")) in found


def test_somebody_elses_adapter_is_made_with_its_options(install) -> None:
    install("acme_dist", "acme", GOOD)
    assert load_adapter("acme", {"idempotent": True}).capabilities.idempotent_submit


def test_an_unknown_name_names_the_nearest_or_all() -> None:
    with pytest.raises(ConfigurationError, match=r"^no adapter is called 'replcate'; did you mean 'replicate'\?$"):
        load_adapter("replcate")
    with pytest.raises(ConfigurationError, match="installed are " + ", ".join(OURS)):
        load_adapter("zzz")


def test_an_option_the_adapter_refuses_is_the_adapters_own_line() -> None:
    with pytest.raises(ConfigurationError, match="unknown key 'wiat'; did you mean 'wait'"):
        load_adapter("replicate", {"wiat": True})


@pytest.mark.parametrize(
    ("source", "says"),
    [
        ("import module_that_is_not_there", "cannot be loaded .ModuleNotFoundError"),
        ("def broken(:", "cannot be loaded .SyntaxError"),
        ("raise ValueError('line one\\nline two')", "cannot be loaded .ValueError: line one line two"),
        ("", "cannot be loaded .AttributeError"),
        ("Acme = 3", "cannot be made .TypeError"),
        ("class Acme:\n    def __init__(self, name, options): 1 / 0", "cannot be made .ZeroDivisionError"),
        ("def Acme(name, options): return object()", "speaks version None .* and this Turnout version 1; install"),
        (GOOD + "    spec_version = 2\n", "speaks version 2 of the adapter contract, and this Turnout version 1"),
        (
            "class Acme:\n    spec_version = 1\n    def __init__(self, *a): pass",
            "lacks auth, base_url, .*submit",
        ),
    ],
)
def test_a_broken_plugin_is_one_line_that_names_its_package(install, source: str, says: str) -> None:
    install("acme_dist", "acme", source)
    with pytest.raises(ConfigurationError, match=rf"^adapter acme of acme_dist: .*{says}") as caught:
        load_adapter("acme")
    assert "\n" not in str(caught.value)


def test_a_name_that_two_packages_claim_is_given_to_neither(install) -> None:
    install("evil_dist", "replicate", GOOD)
    with pytest.raises(ConfigurationError, match="installed twice, by evil_dist and turnout"):
        load_adapter("replicate")
