"""API keys: made strong, kept as hashes, checked without telling more than they must."""

from __future__ import annotations

import re

import pytest

from gateway.contract.key import KeyRecord, KeyRing, hash_key, looks_mistyped, new_key


def test_a_new_key_has_its_form_and_only_its_hash_is_for_keeping() -> None:
    text, id, hash = new_key()
    assert re.fullmatch(rf"to_{id}_[0-9a-z]{{52}}_[0-9a-f]{{8}}", text)
    assert re.fullmatch(r"sha256:[0-9a-f]{64}", hash)
    assert hash == hash_key(text)
    assert not looks_mistyped(text)
    assert len({new_key().text for _ in range(100)}) == 100
    assert len({new_key().id for _ in range(100)}) == 100


@pytest.mark.parametrize("id", ["", "a_b", "A", "x" * 65, "ä", "a b"])
def test_an_id_that_would_break_the_form_is_refused(id: str) -> None:
    with pytest.raises(ValueError, match="no id of a key"):
        new_key(id)


def test_every_single_typo_is_told() -> None:
    text = new_key("web").text
    for place in range(len("to_"), len(text)):
        for other in "0z_":
            if text[place] != other:
                assert looks_mistyped(text[:place] + other + text[place + 1 :])
    assert all(looks_mistyped(text[:length]) for length in range(3, len(text)))
    assert not looks_mistyped("r8_0123")


def test_a_ring_finds_a_key_by_its_text_alone() -> None:
    old, new, foreign = new_key("web"), new_key("web"), new_key("web")
    ring = KeyRing(
        [KeyRecord(name="web", hash=old.hash), KeyRecord(name="web2", hash=new.hash.upper().replace("SHA", "sha"))]
    )
    found = ring.find(old.text)
    assert found is not None
    assert found.name == "web"
    found = ring.find(new.text)
    assert found is not None
    assert found.name == "web2"
    for wrong in (
        foreign.text,
        old.hash,
        old.hash.removeprefix("sha256:"),
        "",
        old.text + " ",
        old.text.upper(),
        "x" * 10_000,
        "\udcff",
    ):
        assert ring.find(wrong) is None


def test_a_key_has_the_scopes_it_was_given_and_no_more() -> None:
    record = KeyRecord(name="a", hash="sha256:" + "0" * 64)
    assert record.allows("predictions")
    assert not record.is_admin
    assert not KeyRecord(name="a", hash="", scopes=frozenset({"admin"})).allows("predictions")
