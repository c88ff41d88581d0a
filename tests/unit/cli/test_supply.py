"""What a configuration gets without a word in it: providers by their tokens, models by the catalogue."""

from __future__ import annotations

from pathlib import Path

import pytest

from gateway.commands.supply import Environment, complete
from gateway.commands.survey import survey
from gateway.config.load import Loaded, parse
from gateway.contract.clock import SystemClock
from gateway.contract.errors import ConfigurationError
from gateway.contract.key import new_key

FAL, REPLICATE = {"FAL_KEY": "id:fal-canary"}, {"REPLICATE_API_TOKEN": "r8_canary"}
BOTH = FAL | REPLICATE
SCHNELL = "black-forest-labs/flux-schnell"


def completed(folder: Path, text: str = "", **environ: str) -> Loaded:
    loaded = parse(text, place="turnout.toml", folder=folder, environ=environ)
    return complete(loaded, environ=environ)


def offers(loaded: Loaded, model: str) -> list[str]:
    catalog = survey(loaded, clock=SystemClock()).catalog
    return [offer.id.rpartition("@")[2] for offer in catalog.offers(model)]


def test_two_tokens_are_all_it_takes(tmp_path: Path) -> None:
    loaded = completed(tmp_path, **BOTH)
    assert offers(loaded, SCHNELL) == ["replicate", "fal"]
    assert loaded.supplied_providers == {"fal", "replicate"}
    assert loaded.secrets["providers.fal.credentials.token"].reveal() == "id:fal-canary"
    assert "r8_canary" in loaded.secret_values, "what a log must never show"
    assert len(loaded.supplied_models) > 40
    assert loaded.schemas[SCHNELL]["Output"]["items"]["format"] == "uri"


def test_without_tokens_nothing_is_added(tmp_path: Path) -> None:
    loaded = completed(tmp_path)
    assert loaded.config == parse("", place="turnout.toml", folder=tmp_path, environ={}).config
    assert loaded.supplied_models == frozenset()


def test_the_local_backend_alone_makes_no_model_of_the_catalogue_servable(tmp_path: Path) -> None:
    assert "nightmareai/real-esrgan" not in completed(tmp_path).supplied_models
    assert offers(completed(tmp_path, **REPLICATE), "nightmareai/real-esrgan") == ["replicate", "local"]
    without = completed(tmp_path, "[local]\nenabled = false\n", **REPLICATE)
    assert offers(without, "nightmareai/real-esrgan") == ["replicate"]


def test_the_bundled_upscaler_is_declared_as_less_than_what_it_stands_in_for(tmp_path: Path) -> None:
    catalog = survey(completed(tmp_path, **REPLICATE), clock=SystemClock()).catalog
    declared = {offer.provider: offer.quality for offer in catalog.offers("nightmareai/real-esrgan")}
    assert declared == {"replicate": "full", "local": "reduced"}


@pytest.mark.parametrize(
    "text", ["[catalogue]\nenabled = false\n", "[catalogue]\nproviders_from_environment = false\n"]
)
def test_either_switch_leaves_the_environment_alone(text: str, tmp_path: Path) -> None:
    loaded = completed(tmp_path, text, **BOTH)
    assert loaded.config.providers == {}
    assert loaded.config.models == ()
    assert not loaded.secrets


def test_a_key_of_our_own_is_no_token_of_replicates(tmp_path: Path) -> None:
    loaded = completed(tmp_path, REPLICATE_API_TOKEN=new_key().text, **FAL)
    assert loaded.supplied_providers == {"fal"}
    missing = Environment(loaded, {"REPLICATE_API_TOKEN": new_key().text}).supply("replicate").missing
    assert missing == "set REPLICATE_API_TOKEN (REPLICATE_API_TOKEN holds a key of Turnout itself)"


@pytest.mark.parametrize("value", ["", " ", "with\nbreaks", " r8_padded"])
def test_what_is_no_secret_is_no_token(value: str, tmp_path: Path) -> None:
    assert completed(tmp_path, REPLICATE_API_TOKEN=value).supplied_providers == frozenset()


def test_a_way_counts_only_when_it_is_whole_and_takes_along_what_is_optional(tmp_path: Path) -> None:
    half = completed(tmp_path, AWS_ACCESS_KEY_ID="AKIA")
    assert half.supplied_providers == frozenset()
    whole = completed(tmp_path, AWS_ACCESS_KEY_ID="AKIA", AWS_SECRET_ACCESS_KEY="s3", AWS_SESSION_TOKEN="session")
    assert set(whole.config.providers["bedrock"].credentials) == {
        "access_key_id",
        "secret_access_key",
        "session_token",
    }
    assert "region" not in whole.config.providers["bedrock"].options
    there = completed(tmp_path, AWS_ACCESS_KEY_ID="AKIA", AWS_SECRET_ACCESS_KEY="s3", AWS_REGION="eu-west-1")
    assert there.config.providers["bedrock"].options == {"region": "eu-west-1"}


def test_a_configured_provider_of_the_adapter_takes_the_place_of_the_environments(tmp_path: Path) -> None:
    text = '[providers.house]\nadapter = "fal"\ntoken = "env:OTHER"\n'
    loaded = completed(tmp_path, text, OTHER="id:other", **BOTH)
    assert loaded.supplied_providers == {"replicate"}
    assert offers(loaded, SCHNELL) == ["replicate", "house"]


def test_a_provider_that_is_elsewhere_serves_the_catalogue_only_if_it_says_so(tmp_path: Path) -> None:
    text = '[providers.fal]\nbase_url = "http://127.0.0.1:9"\ntoken = "env:FAL_KEY"\n'
    assert completed(tmp_path, text, **FAL).supplied_models == frozenset()
    said = completed(tmp_path, text + "catalogue = true\n", **FAL)
    assert offers(said, SCHNELL) == ["fal"]
    home = completed(tmp_path, text.replace("http://127.0.0.1:9", "https://queue.fal.run/"), **FAL)
    assert offers(home, SCHNELL) == ["fal"]


def test_the_name_of_another_provider_is_not_taken_over(tmp_path: Path) -> None:
    text = '[providers.fal]\nadapter = "replicate"\nbase_url = "http://127.0.0.1:9"\n'
    loaded = completed(tmp_path, text, **FAL)
    assert loaded.config.providers["fal"].adapter == "replicate"
    assert loaded.supplied_providers == frozenset()


def test_several_providers_of_one_adapter_offer_it_each(tmp_path: Path) -> None:
    token = 'adapter = "fal"\ntoken = "env:FAL_KEY"\n'
    text = f"[providers.one]\n{token}[providers.two]\n{token}"
    assert offers(completed(tmp_path, text, **FAL), SCHNELL) == ["one", "two"]


def test_a_section_without_credentials_serves_nothing_at_a_vendor_that_wants_some(tmp_path: Path) -> None:
    loaded = completed(tmp_path, "[providers.fal]\n", **FAL)
    assert SCHNELL not in loaded.supplied_models
    assert Environment(loaded, FAL).supply("fal").missing == "write credentials in [providers.fal]"
    elsewhere = '[providers.fal]\nbase_url = "http://10.0.0.5:9000"\ncatalogue = true\n'
    assert offers(completed(tmp_path, elsewhere), SCHNELL) == ["fal"]


OURS = f"""
[[models]]
name = "{SCHNELL.upper()}"
[[models.offers]]
provider = "local"
name = "turnout/upscaler"
price = {{ per_prediction = "0" }}
"""


def test_a_configured_model_replaces_the_catalogues(tmp_path: Path) -> None:
    loaded = completed(tmp_path, OURS, **BOTH)
    assert offers(loaded, SCHNELL) == ["local"]
    assert SCHNELL not in loaded.supplied_models


def test_or_is_laid_beside_it(tmp_path: Path) -> None:
    text = OURS.replace("[[models.offers]]", 'extend = true\npolicy = "fastest"\n[[models.offers]]', 1)
    loaded = completed(tmp_path, text, **BOTH)
    assert offers(loaded, SCHNELL) == ["local", "replicate", "fal"]
    model = survey(loaded, clock=SystemClock()).catalog.get(SCHNELL)
    assert model is not None
    assert model.policy == "fastest"
    assert model.description.startswith("FLUX.1 [schnell]")
    assert "aspect_ratio" in model.versions[0].schema["components"]["schemas"]["Input"]["properties"]


def test_extending_alone_sets_a_policy_and_serves_nothing_by_itself(tmp_path: Path) -> None:
    text = f'[[models]]\nname = "{SCHNELL}"\nextend = true\npolicy = "cheapest"\n'
    assert offers(completed(tmp_path, text, **FAL), SCHNELL) == ["fal"]
    assert offers(completed(tmp_path, text), SCHNELL) == []


def test_extending_what_is_not_there_is_told_with_its_line_and_the_nearest(tmp_path: Path) -> None:
    text = '[[models]]\nname = "black-forest-labs/flux-schnel"\nextend = true\n'
    with pytest.raises(ConfigurationError) as refused:
        completed(tmp_path, text)
    said = f'the catalogue has no such model; did you mean "{SCHNELL}"?'
    assert str(refused.value) == f"turnout.toml:3: models[0].extend: {said}"


def test_an_adapter_that_needs_more_than_a_token_is_there_only_with_it(tmp_path: Path) -> None:
    text = '[catalogue]\nfiles = ["more.toml"]\n'
    (tmp_path / "more.toml").write_text('[adapters.fal]\nneeds = { sync = "FAL_SYNC" }\n')
    assert completed(tmp_path, text, **FAL).supplied_providers == frozenset()
    loaded = parse(text, place="turnout.toml", folder=tmp_path, environ=FAL)
    assert Environment(loaded, FAL).supply("fal").missing == "set FAL_SYNC"
    assert Environment(loaded, {}).supply("fal").missing == "set FAL_KEY and FAL_SYNC"


def test_options_that_a_catalogue_writes_wrong_are_a_fault_of_the_configuration(tmp_path: Path) -> None:
    (tmp_path / "more.toml").write_text(
        '[[models]]\nname = "acme/x"\ntask = "chat"\noutput = "text"\n'
        '[[models.offers]]\nadapter = "fal"\nname = "x"\noptions = { snyc = true }\n'
    )
    loaded = completed(tmp_path, '[catalogue]\nfiles = ["more.toml"]\n', **FAL)
    with pytest.raises(ConfigurationError) as refused:
        survey(loaded, clock=SystemClock())
    said = "options of adapter fal: unknown key 'snyc'; did you mean 'sync'?"
    assert str(refused.value) == f"turnout.toml: catalogue: acme/x at fal: {said}"


def test_an_adapter_that_is_not_installed_or_broken_keeps_nobody_from_starting(tmp_path: Path) -> None:
    (tmp_path / "more.toml").write_text(
        '[[models]]\nname = "acme/x"\ntask = "chat"\noutput = "text"\n[[models.offers]]\nadapter = "acme"\nname = "x"\n'
    )
    loaded = completed(tmp_path, '[catalogue]\nfiles = ["more.toml"]\n', **FAL)
    assert Environment(loaded, FAL).supply("acme").missing == "install an adapter called acme"
    assert "acme/x" not in loaded.supplied_models
    assert SCHNELL in loaded.supplied_models
