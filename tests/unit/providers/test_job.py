"""What queues of jobs and forms share: names in paths, words about credit, and what becomes a part of a form."""

from __future__ import annotations

import pytest

from gateway.contract.errors import InputRefused, ModelMissing
from providers._form import form_request
from providers._job import check_name, speaks_of_credit, urls_of
from providers._runware_error import kind_of_code


@pytest.mark.parametrize("name", ["flux-2-pro", "stable-image/generate/core", "sd3.5", "a_b/c"])
def test_a_name_that_can_stand_in_a_path_is_taken_as_it_is(name: str) -> None:
    assert check_name(name) == name


@pytest.mark.parametrize(
    "name", ["", "..", "a/../b", "/a", "a/", "a//b", "a?b", "a#b", "a%2eb", "ä", "a b", "a\nb", "a/.b"]
)
def test_a_name_that_leads_elsewhere_is_refused(name: str) -> None:
    with pytest.raises(ModelMissing):
        check_name(name)


@pytest.mark.parametrize(
    "words",
    [
        "Insufficient credits",
        "You do not have enough credits to run this task.",
        "You don't have enough credits",
        "You are out of credits",
        "no credits left",
    ],
)
def test_words_that_say_that_there_is_no_credit_are_heard(words: str) -> None:
    assert speaks_of_credit(words)


@pytest.mark.parametrize("words", ["", "credits must be a number", "prompt: not a credit card", "not enough words"])
def test_words_about_something_else_are_not_taken_for_an_empty_wallet(words: str) -> None:
    assert not speaks_of_credit(words)


def test_only_addresses_are_files() -> None:
    values = [
        "https://a.example/x",
        "http://127.0.0.1/x",
        "file:///etc/passwd",
        "javascript:1",
        "x",
        None,
        7,
        ["https://a"],
    ]
    assert urls_of(values) == ["https://a.example/x", "http://127.0.0.1/x"]
    assert urls_of("https://a.example/x") == []
    assert urls_of(None) == []


def test_a_form_holds_files_as_bytes_and_all_else_as_text() -> None:
    request = form_request(
        "/x",
        {
            "image": "data:image/png;base64,iVBORw0KGgo=",
            "prompt": "a, b",
            "seed": 0,
            "loop": False,
            "scale": 4.5,
            "box": {"x": 1},
            "tags": ["a", 2],
            "nothing": None,
        },
    )
    assert request.files == (("image", "image.png", "image/png", b"\x89PNG\r\n\x1a\n"),)
    assert dict(request.form[:5]) == {
        "prompt": "a, b",
        "seed": "0",
        "loop": "false",
        "scale": "4.5",
        "box": '{"x":1}',
    }
    assert request.form[5:] == (("tags", "a"), ("tags", "2"))


def test_a_form_of_nothing_still_has_a_part() -> None:
    assert form_request("/x", {"seed": None}).form == (("none", ""),)


def test_a_file_that_cannot_be_read_is_the_callers_fault() -> None:
    with pytest.raises(InputRefused, match="image"):
        form_request("/x", {"image": "data:image/png;base64,###"})


@pytest.mark.parametrize(
    ("code", "failure"),
    [
        ("invalidPositivePrompt", "input_refused"),
        ("validationFailed", "input_refused"),
        ("missingApiKey", "credential_refused"),
        ("authTimeout", "credential_refused"),
        ("providerAuthenticationFailed", "model_failed"),
        ("providerInsufficientCredits", "wallet_empty"),
        ("providerRateLimitExceeded", "rate_limited"),
        ("sensitiveContentDetected", "input_moderated"),
        ("unknownError", "model_failed"),
        ("internalServerError", "model_failed"),
        ("modelOwnershipValidationError", "model_missing"),
        ("providerGatewayTimeout", "job_timed_out"),
        ("noAvailableServer", "at_capacity"),
        ("taskFailedOrNotFound", "job_lost"),
    ],
)
def test_runwares_codes_are_read_by_their_families(code: str, failure: str) -> None:
    kind = kind_of_code(code)
    assert kind is not None
    assert kind.code == failure


@pytest.mark.parametrize("code", [None, 7, ["x"], "", "somethingWeird", "conflictTaskUUID"])
def test_a_code_that_nobody_knows_means_nothing(code: object) -> None:
    assert kind_of_code(code) is None
