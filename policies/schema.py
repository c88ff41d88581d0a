"""The JSON Schema of policy files, for editors, made of the Structs of `document`. Reads no file."""

from __future__ import annotations

from typing import Any

import msgspec

from policies.document import File, Policy

DIALECT = "https://json-schema.org/draft/2020-12/schema"
ID = "urn:turnout:policy"


def json_schema() -> dict[str, Any]:
    """Draft 2020-12. A file holds one policy at its top, or several as [[policies]]."""
    roots, parts = msgspec.json.schema_components((Policy, File), ref_template="#/$defs/{name}")
    for part in parts.values():
        for key in part["properties"].values():
            if "$ref" in key:
                key.pop("default", None)  # its own keys say it
    return {
        "$schema": DIALECT,
        "$id": ID,
        "title": "A policy file of Turnout",
        "description": "Which offers may serve a prediction, in which order, within which limits.",
        "anyOf": list(roots),
        "$defs": parts,
    }
