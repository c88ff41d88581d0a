"""How an offer's input and output differ from the model's: the two mappings, wherever a text or tree may lead them."""

from __future__ import annotations

import copy
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.config.complaint import Complaints
from gateway.config.model import OutputSection
from gateway.contract.route import InputMapping, OutputMapping

# -- inputs -----------------------------------------------------------------------------------------------------------


def test_nothing_said_nothing_changed() -> None:
    input = {"prompt": "a cat", "a.b": 1, "c[]": [2]}
    mapped = InputMapping().apply(input)
    assert mapped == input
    assert mapped is not input


def test_a_key_of_the_callers_is_never_a_path() -> None:
    assert InputMapping(drop=("x",)).apply({"a.b": 1, "c[]": 2, "x": 3}) == {"a.b": 1, "c[]": 2}


@pytest.mark.parametrize(
    ("mapping", "input", "mapped"),
    [
        ({"rename": {"num_outputs": "n"}}, {"num_outputs": 2}, {"n": 2}),
        ({"rename": {"w": "size.w", "h": "size.h"}}, {"w": 1, "h": 2}, {"size": {"w": 1, "h": 2}}),
        ({"rename": {"a": "x[]", "b": "x[]"}}, {"a": 1, "b": 2}, {"x": [1, 2]}),
        ({"rename": {"image": "frames.first[]"}}, {"image": "u"}, {"frames": {"first": ["u"]}}),
        ({"values": {"format": {"jpg": "jpeg"}}}, {"format": "jpg"}, {"format": "jpeg"}),
        ({"values": {"format": {"jpg": "jpeg"}}}, {"format": "png"}, {"format": "png"}),
        ({"values": {"seconds": {"5": "5s"}}}, {"seconds": 5}, {"seconds": "5s"}),
        ({"values": {"off": {"true": False, "false": True}}, "rename": {"off": "on"}}, {"off": True}, {"on": False}),
        ({"values": {"x": {"1": "one"}}}, {"x": [1]}, {"x": [1]}),
        ({"set": {"model": 1, "voice.speed": 1}}, {"voice": {"id": 2}}, {"voice": {"id": 2, "speed": 1}, "model": 1}),
        ({"set": {"steps": 4}}, {"steps": 9}, {"steps": 4}),
        ({"drop": ("go_fast", "absent")}, {"go_fast": True, "a": 1}, {"a": 1}),
        ({"rename": {"a": "b"}, "drop": ("b",)}, {"a": 1}, {}),
        (
            {"spread": {"ratio": {"16:9": {"width": 1344, "height": 768}}}},
            {"ratio": "16:9", "seed": 1},
            {"width": 1344, "height": 768, "seed": 1},
        ),
        ({"spread": {"ratio": {"16:9": {"s.w": 16, "s.h": 9}}}}, {"ratio": "16:9"}, {"s": {"w": 16, "h": 9}}),
        ({"spread": {"ratio": {"auto": {}}}}, {"ratio": "auto", "a": 1}, {"a": 1}),
        ({"spread": {"ratio": {"auto": {}}}, "rename": {"ratio": "aspect"}}, {"ratio": "1:1"}, {"aspect": "1:1"}),
        ({"spread": {"hd": {"true": {"w": 2}, "false": {"w": 1}}}}, {"hd": False}, {"w": 1}),
        ({"set": {"a.b.c": 1}}, {"a": "in the way"}, {"a": {"b": {"c": 1}}}),
        ({"set": {"a[]": 1}}, {"a": "in the way"}, {"a": [1]}),
    ],
)  # fmt: skip
def test_each_verb_of_an_input_mapping(mapping: dict[str, Any], input: dict[str, Any], mapped: dict[str, Any]) -> None:
    before = copy.deepcopy(input)
    assert InputMapping(**mapping).apply(input) == mapped
    assert input == before


def test_the_verbs_come_in_their_order() -> None:
    mapping = InputMapping(
        values={"format": {"jpg": "jpeg"}},
        spread={"ratio": {"1:1": {"w": 1, "h": 1}}},
        rename={"format": "type", "seed": "w"},
        set={"h": 5},
        drop=("type",),
    )
    # `values` before `rename` before `set` before `drop`; what is spread is written over like anything else.
    assert mapping.apply({"ratio": "1:1", "format": "jpg", "seed": 7}) == {"w": 7, "h": 5}


def test_what_lies_inside_the_callers_input_is_not_written_into() -> None:
    inner = {"id": "a"}
    items = [1]
    input = {"voice": inner, "items": items}
    mapped = InputMapping(set={"voice.speed": 2, "items[]": 2, "voice.deep.er": 3}).apply(input)
    assert mapped == {"voice": {"id": "a", "speed": 2, "deep": {"er": 3}}, "items": [1, 2]}
    assert (inner, items) == ({"id": "a"}, [1])


def test_constants_are_not_shared_between_predictions() -> None:
    mapping = InputMapping(set={"config.kinds": ["IMAGE"], "config.size": 1})
    first = mapping.apply({})
    first["config"]["size"] = 9
    assert mapping.apply({})["config"]["size"] == 1


leaves = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=6)
trees = st.recursive(
    leaves, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3)
)
keys = st.sampled_from(["a", "b", "c"]) | st.text(max_size=4)
paths = st.lists(st.sampled_from(["a", "b", "c", "a[]", "[]", ""]), min_size=1, max_size=4).map(".".join) | keys
constants = st.dictionaries(paths, leaves, max_size=3)
mappings = st.builds(
    InputMapping,
    values=st.dictionaries(keys, st.dictionaries(st.text(max_size=3), leaves, max_size=2), max_size=2),
    spread=st.dictionaries(keys, st.dictionaries(st.text(max_size=3), constants, max_size=2), max_size=2),
    rename=st.dictionaries(keys, paths, max_size=3),
    set=constants,
    drop=st.lists(keys, max_size=2).map(tuple),
)


@given(mappings, st.dictionaries(keys, trees, max_size=4))
def test_whatever_is_mapped_nothing_is_raised_and_the_input_is_untouched(
    mapping: InputMapping, input: dict[str, Any]
) -> None:
    before = copy.deepcopy(input)
    mapped = mapping.apply(input)
    assert input == before
    assert mapped is not input
    json.dumps(mapped)  # it stays something that can be sent
    assert mapping.apply(input) == mapped


@given(st.dictionaries(keys, trees, max_size=4))
def test_a_key_that_is_not_spoken_of_passes_as_it_is(input: dict[str, Any]) -> None:
    mapping = InputMapping(rename={"not there": "x"}, values={"nor this": {"a": "b"}}, spread={"nor that": {"a": {}}})
    assert mapping.apply(input) == input


# -- outputs ----------------------------------------------------------------------------------------------------------

RESULT = {"images": [{"url": "u1"}, {"url": "u2"}, {"none": 1}], "video": {"url": "v"}, "empty": [], "nothing": None}


@pytest.mark.parametrize(
    ("path", "output", "found"),
    [
        ("", RESULT, RESULT),
        ("images[*].url", RESULT, ["u1", "u2"]),
        ("images[0].url", RESULT, "u1"),
        ("images[1]", RESULT, {"url": "u2"}),
        ("video.url", RESULT, "v"),
        ("[*].text", [{"text": "a"}, {"text": "b"}], ["a", "b"]),
        ("[0]", ["a", "b"], "a"),
        ("[0].choices[0].tokens", [{"choices": [{"tokens": ["a", "b"]}]}], ["a", "b"]),
        ("a[*].b[*]", {"a": [{"b": [1, 2]}, {"b": [3]}]}, [1, 2, 3]),
        ("a[*][0]", {"a": [[1, 2], [3], []]}, [1, 3]),
        ("data[0]", {"data": [[0.5, 0.25]]}, [0.5, 0.25]),
        ("a", {"a": 0}, 0),
        ("a", {"a": False}, False),
        ("a", {"a": ""}, ""),
    ],
)
def test_a_path_leads_to_what_lies_there(path: str, output: Any, found: Any) -> None:
    assert OutputMapping(path=path).apply(output) == found


@pytest.mark.parametrize(
    ("path", "output"),
    [
        ("video", {}),
        ("video.url", {"video": None}),
        ("video.url", {"video": "a text"}),
        ("video.url", "a text"),
        ("nothing", RESULT),
        ("empty[*]", RESULT),
        ("empty[0]", RESULT),
        ("images[9].url", RESULT),
        ("images[*].gone", RESULT),
        ("images.url", RESULT),
        ("video[0]", RESULT),
        ("[0]", {"0": "a key is no index"}),
        ("x", None),
        ("x", 5),
    ],
)
def test_where_nothing_lies_the_path_is_named(path: str, output: Any) -> None:
    with pytest.raises(LookupError) as nothing:
        OutputMapping(path=path).apply(output)
    assert nothing.value.args == (path,)


@pytest.mark.parametrize(
    ("form", "output", "formed"),
    [
        ("list", "u", ["u"]),
        ("list", ["u"], ["u"]),
        ("list", {"a": 1}, [{"a": 1}]),
        ("one", ["u1", "u2"], "u1"),
        ("one", "u", "u"),
        ("one", [], []),
        ("text", ["wo", "rds"], "words"),
        ("text", ["a", 1], "a1"),
        ("text", [], ""),
        ("text", "words", "words"),
        ("", ["u"], ["u"]),
    ],
)
def test_a_form_is_what_callers_expect(form: str, output: Any, formed: Any) -> None:
    assert OutputMapping(form=form).apply(output) == formed


def test_path_and_form_together() -> None:
    assert OutputMapping(path="images[*].url", form="one").apply(RESULT) == "u1"
    assert OutputMapping(path="video.url", form="list").apply(RESULT) == ["v"]


steps = st.sampled_from(["[*]", "[0]", "[1]", "[7]"])
words = st.sampled_from(["a", "b", "url", "images"])
output_paths = st.builds(
    lambda first, rest: "".join(first) + (("." if first and rest else "") + ".".join(w + "".join(s) for w, s in rest)),
    st.lists(steps, max_size=2),
    st.lists(st.tuples(words, st.lists(steps, max_size=2)), max_size=3),
)
outputs = st.recursive(
    leaves, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(words | st.text(max_size=3), inner, max_size=3)
)


def followed(mapping: OutputMapping, output: Any) -> Any:
    """What it finds; None if there is nothing, and the path is named."""
    nothing: LookupError | None = None
    try:
        return mapping.apply(output)
    except LookupError as error:
        nothing = error
    assert mapping.path
    assert nothing.args == (mapping.path,)
    return None


@given(output_paths, st.sampled_from(["", "list", "one", "text"]), outputs)
def test_whatever_came_only_a_lookup_error_is_raised_and_the_output_is_untouched(
    path: str, form: str, output: Any
) -> None:
    complaints = Complaints()
    complaints._want_output((), OutputSection(path=path, form=form))
    assert complaints.problems == [], "what the configuration takes is what this can follow"
    before = copy.deepcopy(output)
    found = followed(OutputMapping(path=path, form=form), output)
    assert form != "list" or found is None or isinstance(found, list)
    assert form != "text" or not isinstance(found, list)
    assert output == before


@given(st.text(max_size=12))
def test_what_the_configuration_takes_for_a_path_can_be_followed(path: str) -> None:
    complaints = Complaints()
    complaints._want_output((), OutputSection(path=path))
    if not complaints.problems:
        for output in ({}, [], "text", None, {"a": [{"a": 1}]}):
            followed(OutputMapping(path=path), output)
