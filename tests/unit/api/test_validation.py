"""The wording of a 422, keyword by keyword, and what a fitting input becomes."""

from __future__ import annotations

import tracemalloc
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.api.keyword import is_file_uri
from gateway.api.validation import InputSchema, compile_schema, speaks_of_files
from gateway.contract.errors import InputInvalid
from tests.unit.api.fakes import PUBLIC, World, document, refuse_private, replace


def lines(schema: dict[str, Any], value: Any, **components: Any) -> list[tuple[str, str, str]]:
    _, errors = InputSchema(document({"f": schema}, **components)).fit({"f": value})
    return [(one.type, one.field, one.description) for one in errors]


CASES: list[tuple[dict[str, Any], Any, str, str]] = [
    ({"type": "string"}, 1, "invalid_type", "Invalid type. Expected: string, given: integer"),
    ({"type": "string"}, 1.5, "invalid_type", "Invalid type. Expected: string, given: number"),
    ({"type": "string"}, None, "invalid_type", "Invalid type. Expected: string, given: null"),
    ({"type": "string"}, [], "invalid_type", "Invalid type. Expected: string, given: array"),
    ({"type": "integer"}, True, "invalid_type", "Invalid type. Expected: integer, given: boolean"),
    ({"type": "integer"}, 1.5, "invalid_type", "Invalid type. Expected: integer, given: number"),
    ({"type": "integer"}, "1", "invalid_type", "Invalid type. Expected: integer, given: string"),
    ({"type": "number"}, {}, "invalid_type", "Invalid type. Expected: number, given: object"),
    ({"type": "boolean"}, 0, "invalid_type", "Invalid type. Expected: boolean, given: integer"),
    ({"type": ["string", "integer"]}, 1.5, "invalid_type", "Invalid type. Expected: [string,integer], given: number"),
    ({"type": "integer", "minimum": 1}, 0, "number_gte", "Must be greater than or equal to 1"),
    ({"type": "number", "minimum": 0.5}, 0.25, "number_gte", "Must be greater than or equal to 0.5"),
    ({"type": "number", "minimum": 1.0}, 0, "number_gte", "Must be greater than or equal to 1"),
    ({"type": "integer", "maximum": 50}, 51, "number_lte", "Must be less than or equal to 50"),
    ({"type": "number", "exclusiveMinimum": 0}, 0, "number_gt", "Must be greater than 0"),
    ({"type": "number", "exclusiveMaximum": 1}, 1, "number_lt", "Must be less than 1"),
    ({"type": "number", "minimum": 0, "exclusiveMinimum": True}, 0, "number_gt", "Must be greater than 0"),
    ({"type": "number", "maximum": 9, "exclusiveMaximum": True}, 9, "number_lt", "Must be less than 9"),
    ({"type": "integer", "multipleOf": 8}, 12, "multiple_of", "Must be a multiple of 8"),
    ({"type": "number", "multipleOf": 0.1}, 0.25, "multiple_of", "Must be a multiple of 0.1"),
    ({"type": "string", "minLength": 2}, "é", "string_gte", "String length must be greater than or equal to 2"),
    ({"type": "string", "maxLength": 2}, "ééé", "string_lte", "String length must be less than or equal to 2"),
    ({"type": "string", "pattern": "^a+$"}, "b", "pattern", "Does not match pattern '^a+$'"),
    ({"type": "string", "format": "uri"}, "picture.png", "format", "Does not match format 'uri'"),
    ({"type": "array", "minItems": 1}, [], "array_min_items", "Array must have at least 1 items"),
    ({"type": "array", "maxItems": 1}, [1, 2], "array_max_items", "Array must have at most 1 items"),
    ({"type": "array", "uniqueItems": True}, [{"a": 1}, {"a": 1}], "unique", "array items must be unique"),
    ({"enum": ["jpg", "png"], "type": "string"}, "webp", "enum", 'f must be one of the following: "jpg", "png"'),
    ({"enum": [1, 2], "type": "integer"}, 3, "enum", "f must be one of the following: 1, 2"),
    ({"enum": [1, "2"]}, True, "enum", 'f must be one of the following: 1, "2"'),
]


@pytest.mark.parametrize(("schema", "value", "type", "description"), CASES)
def test_each_keyword_has_its_type_and_words(schema: dict[str, Any], value: Any, type: str, description: str) -> None:
    assert lines(schema, value) == [(type, "input.f", description)]


@pytest.mark.parametrize(
    ("schema", "value"),
    [
        ({"type": "string"}, ""),
        ({"type": "integer"}, 2.0),
        ({"type": "number"}, 3),
        ({"type": "integer", "minimum": 1}, 1),
        ({"type": "string", "nullable": True}, None),
        ({"anyOf": [{"type": "string"}, {"type": "null"}]}, None),
        ({"type": "string", "format": "uri"}, "https://x.example/a b".replace(" ", "%20")),
        ({"type": "string", "format": "uri"}, "data:image/png;base64,AAAA"),
        ({"type": "string", "format": "uri"}, "data:image/png;base64,AA=="),
        ({"type": "string", "format": "uri"}, "data:text/plain;charset=utf-8,a%20b"),
        ({"type": "string", "format": "uri"}, "HTTP://[::1]:8080/x?y=z#f"),
        ({"type": "string", "format": "uri"}, "https://bücher.example/ü"),
        ({"type": "array", "items": {"type": "string", "format": "uri"}}, ["https://x.example/a", "data:a/b,c"]),
        ({"type": "number", "multipleOf": 0.1}, 0.3),
        ({"type": "string", "minLength": 2}, "éé"),
        ({"enum": [1.0]}, 1),
        ({"type": "array", "uniqueItems": True}, [1, True, "1"]),
        ({}, {"anything": 1}),
        ({"type": "string", "pattern": "(?<"}, "a pattern of another dialect"),
        ({"type": "integer"}, 10**300),
        ({"type": "number", "multipleOf": 0.5}, 10.0),
        ({"type": "object", "properties": {}}, {}),
    ],
)
def test_what_fits_is_let_through(schema: dict[str, Any], value: Any) -> None:
    assert lines(schema, value) == []


def test_a_missing_field_is_told_of_its_parent() -> None:
    _, errors = InputSchema(document({"prompt": {"type": "string", "required": True}})).fit({})
    assert [(one.type, one.field, one.description) for one in errors] == [("required", "input", "prompt is required")]
    assert str(InputInvalid(errors)) == "- input: prompt is required\n"


def test_the_enum_of_a_component_reads_as_the_recorded_one() -> None:
    schema = {"allOf": [{"$ref": "#/components/schemas/f"}], "default": "jpg", "x-order": 1}
    found = lines(schema, "webp", f={"enum": ["jpg", "png"], "type": "string", "title": "f"})
    assert found == [("enum", "input.f", 'f must be one of the following: "jpg", "png"')]


def test_nested_fields_are_named_by_their_path() -> None:
    item = {
        "type": "object",
        "required": ["x"],
        "properties": {"x": {"type": "integer"}},
        "additionalProperties": False,
    }
    schema = {"type": "array", "items": item}
    assert lines(schema, [{"x": 1}, {"x": "a"}, {"y": 1}]) == [
        ("invalid_type", "input.f.1.x", "Invalid type. Expected: integer, given: string"),
        ("required", "input.f.2", "x is required"),
        ("additional_property_not_allowed", "input.f.2", "Additional property y is not allowed"),
    ]


def test_combinations_say_which_did_not_hold() -> None:
    either = {"anyOf": [{"type": "string"}, {"type": "integer"}]}
    assert lines(either, 1.5)[0] == ("number_any_of", "input.f", "Must validate at least one schema (anyOf)")
    one = {"oneOf": [{"type": "number"}, {"type": "integer"}]}
    assert lines(one, 1) == [("number_one_of", "input.f", "Must validate one and only one schema (oneOf)")]
    both = {"allOf": [{"minimum": 1}, {"maximum": 3}]}
    assert lines(both, 4)[-1] == ("number_all_of", "input.f", "Must validate all the schemas (allOf)")
    for schema, value in ((either, "a"), (one, 1.5), (both, 2)):
        assert lines(schema, value) == []


def test_several_errors_come_in_one_answer_required_first() -> None:
    schema = InputSchema(document({"a": {"type": "string", "required": True}, "b": {"type": "integer", "minimum": 1}}))
    _, errors = schema.fit({"b": 0})
    assert [one.type for one in errors] == ["required", "number_gte"]


def test_a_schema_that_refers_to_itself_is_followed_as_deep_as_the_value() -> None:
    tree = {
        "type": "object",
        "properties": {
            "left": {"$ref": "#/components/schemas/Tree"},
            "right": {"allOf": [{"$ref": "#/components/schemas/Tree"}], "nullable": True},
            "either": {"anyOf": [{"$ref": "#/components/schemas/Tree"}, {"type": "null"}]},
            "value": {"type": "integer"},
        },
    }
    schema = {"$ref": "#/components/schemas/Tree"}
    assert lines(schema, {"left": {"right": {"either": {"value": 1}}}}, Tree=tree) == []
    found = lines(schema, {"left": {"right": {"either": {"value": "x"}}}}, Tree=tree)
    assert [one[1] for one in found] == ["input.f.left.right.either.value"]
    assert lines({"$ref": "#/components/schemas/Loop"}, 1, Loop={"$ref": "#/components/schemas/Loop"}) == []
    assert lines({"$ref": "#/components/schemas/Gone"}, 1) == []


def test_defaults_are_copied_and_null_defaults_left_out() -> None:
    schema = InputSchema(document({"a": {"type": "array", "default": []}, "b": {"type": "string", "default": None}}))
    first, _ = schema.fit({})
    first["a"].append(1)
    assert schema.fit({})[0] == {"a": []}


def test_an_input_given_is_not_changed() -> None:
    given = {"x": 1}
    InputSchema(document({"a": {"type": "integer", "default": 3}})).fit(given)
    assert given == {"x": 1}


def test_the_number_of_errors_is_bounded() -> None:
    assert len(lines({"type": "array", "items": {"type": "string"}}, [1] * 5000)) == 100


def test_files_in_an_output_are_found_wherever_they_stand() -> None:
    uri = {"type": "string", "format": "uri"}
    assert speaks_of_files(document({}, output=uri))
    assert speaks_of_files(document({}, output={"type": "array", "items": uri}))
    assert speaks_of_files(document({}, output={"$ref": "#/components/schemas/Out"}, Out={"properties": {"a": uri}}))
    assert not speaks_of_files(document({}, output={"type": "array", "items": {"type": "string"}}))
    assert not speaks_of_files(
        document({}, output={"$ref": "#/components/schemas/Out"}, Out={"$ref": "#/components/schemas/Out"})
    )
    assert not speaks_of_files({})


@pytest.mark.parametrize(
    "text", ["", "a", "/a/b", "a b", "http://[", "C:\\x", "https://a b", "data:image/png;base64", "//host/x",
     "ftp://host/x", "file:///etc/passwd", "gs://bucket/x", "blob:https://a/b", "http:", "http:host", "https:///x",
     "http://:80/x", "http://host:99999/x", "http://host:0/x", "https://a\x7f/", "https://a\tb/", "DATA:image/png,x",
     "data:image/png;base64,AA", "data:image/png;base64,A===", "data:image/png;base64,AA EC", "data:image/png,%zz",
     "data:image/png;base64,AA,A", "data:;base64,AAAA", "data:image/png;base64,%%%", "data:text/plain,a b"],
)  # fmt: skip
def test_what_no_file_can_be_had_from(text: str) -> None:
    assert not is_file_uri(text)


def test_ten_megabytes_are_looked_at_and_not_copied() -> None:
    check = compile_schema({"type": "string", "format": "uri"})
    text = "data:image/png;base64," + "A" * 10_000_000
    values = ((text, 0), (text + "=", 1), (text[:-1] + "!", 1))
    tracemalloc.start()
    for value, count in values:
        errors: list[Any] = []
        check(value, "", errors)
        assert len(errors) == count
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 100_000


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=12,
)
WORDS = st.fixed_dictionaries(
    {},
    optional={
        "type": st.sampled_from(["string", "integer", "number", "boolean", "array", "object"]),
        "minimum": st.integers(),
        "maximum": st.floats(allow_nan=False),
        "multipleOf": st.sampled_from([0, 0.1, 3]),
        "minLength": st.integers(0, 9),
        "pattern": st.text(max_size=5),
        "enum": st.lists(JSON, max_size=3),
        "format": st.sampled_from(["uri", "password"]),
        "items": st.just({"type": "string"}),
        "uniqueItems": st.booleans(),
        "nullable": st.booleans(),
        "default": JSON,
    },
)


@settings(max_examples=300, deadline=None)
@given(schema=WORDS, value=JSON)
def test_no_value_and_no_schema_make_the_check_itself_fail(schema: dict[str, Any], value: Any) -> None:
    lines(dict(schema), value)
    errors: list[Any] = []
    compile_schema(dict(schema))(value, "", errors)


async def test_over_http_the_recorded_errors_are_answered_to_the_letter(world: World) -> None:
    reply = await world.post({"version": "acme/writer", "input": {"prompt": "x", "output_format": "webp"}})
    assert reply.json() == {
        "detail": '- input.output_format: output_format must be one of the following: "jpg", "png"\n',
        "status": 422,
        "title": "Input validation failed",
        "invalid_fields": [
            {
                "type": "enum",
                "field": "input.output_format",
                "description": 'output_format must be one of the following: "jpg", "png"',
            }
        ],
    }
    reply = await world.post({"version": "acme/writer", "input": {}})
    assert reply.json() == {
        "detail": "- input: prompt is required\n",
        "status": 422,
        "title": "Input validation failed",
        "invalid_fields": [{"type": "required", "field": "input", "description": "prompt is required"}],
    }


BAD_FILE = {"type": "format", "description": "Does not match format 'uri'"}


@pytest.mark.parametrize(
    "image", ["ftp://host/x", "data:image/png;base64,%%%", "data:image/png;base64,AAA", "/etc/passwd", "gs://a/b"]
)
async def test_a_file_that_nobody_could_have_is_refused_before_anything_is_stored(world: World, image: str) -> None:
    reply = await world.post({"version": "acme/writer", "input": {"prompt": "x", "image": image}})
    assert (reply.status_code, reply.json()["title"]) == (422, "Input validation failed")
    assert reply.json()["invalid_fields"] == [{**BAD_FILE, "field": "input.image"}]
    assert reply.json()["detail"] == "- input.image: Does not match format 'uri'\n"
    assert world.store.predictions == {}


def guarded(tmp_path: Path, properties: dict[str, Any]) -> World:
    world = World(tmp_path, check_input_url=refuse_private)
    model = world.models.all[0]
    versions = (replace(model.versions[0], schema=document(properties)), *model.versions[1:])
    world.models.all[0] = replace(model, versions=versions)
    return world


FILE = {"type": "string", "format": "uri"}


async def test_an_address_of_ours_in_an_input_is_refused_with_the_place_it_stands_at(tmp_path: Path) -> None:
    lists = {"type": "array", "items": {"type": "array", "items": FILE}}
    world = guarded(tmp_path, {"image": dict(FILE), "images": lists, "prompt": {"type": "string"}})
    near, far = "http://127.0.0.1:9/x", "https://far.example/x"
    input = {"prompt": near, "image": near, "images": [[far], [far, near]]}
    reply = await world.post({"version": "acme/writer", "input": input})
    assert reply.status_code == 422
    assert [(one["type"], one["field"]) for one in reply.json()["invalid_fields"]] == [
        ("format", "input.image"),
        ("format", "input.images.1.1"),
    ]
    assert reply.json()["invalid_fields"][0]["description"] == "127.0.0.1 is a loopback address"
    assert world.store.predictions == {}


@pytest.mark.parametrize("public", [PUBLIC, "http://127.0.0.1:8000"])
@pytest.mark.parametrize("path", ["/v1/files/abc", "/artifacts/token/out.png"])
async def test_our_own_files_pass_wherever_we_are(tmp_path: Path, public: str, path: str) -> None:
    world = guarded(tmp_path, {"image": dict(FILE)})
    object.__setattr__(world.context, "base", public)
    reply = await world.post({"version": "acme/writer", "input": {"image": public + path}})
    assert reply.status_code == 201
    reply = await world.post({"version": "acme/writer", "input": {"image": f"http://127.0.0.1:80{path}"}})
    assert reply.status_code == 422, "somebody else at our path"


async def test_without_a_check_every_address_is_passed_on(world: World) -> None:
    reply = await world.post({"version": "acme/writer", "input": {"prompt": "x", "image": "http://127.0.0.1/x"}})
    assert reply.status_code == 201
