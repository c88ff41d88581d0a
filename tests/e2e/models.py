"""The models that `Upstream` runs, as gateways of these tests are told of them. Starts none."""

from __future__ import annotations

import json
from pathlib import Path

_TEXT = {
    "Input": {"type": "object", "properties": {"prompt": {"type": "string", "x-order": 0}}, "required": ["prompt"]},
    "Output": {
        "type": "array",
        "items": {"type": "string"},
        "x-cog-array-type": "iterator",
        "x-cog-array-display": "concatenate",
    },
}
_JOB = {
    "Input": {
        "type": "object",
        "properties": {
            "do": {"type": "string", "enum": ["echo", "fail", "hold"], "x-order": 0},
            "text": {"type": "string", "x-order": 1},
            "count": {"type": "integer", "minimum": 1, "maximum": 9, "default": 1, "x-order": 2},
        },
        "required": ["do"],
    },
    "Output": {"type": "string"},
}
_GROW = {
    "Input": {"type": "object", "properties": {"do": {"type": "string"}, "text": {"type": "string"}}},
    "Output": {"type": "array", "items": {"type": "string"}, "x-cog-array-type": "iterator"},
}
_SCHEMAS = {"text": _TEXT, "job": _JOB, "grow": _GROW}

# Those of its jobs, for a configuration that is formatted with `upstream`.
UPSTREAM = """
[providers.jobs]
adapter = "replicate"
base_url = "{upstream}/v1"
token = "env:UPSTREAM_TOKEN"

[[models]]
name = "acme/job"
description = "Does as it is told."
schema = "job.json"
[[models.offers]]
provider = "jobs"
name = "upstream/job"

[[models]]
name = "acme/grow"
description = "Grows at each look."
schema = "grow.json"
[[models.offers]]
provider = "jobs"
name = "upstream/grow"
"""
ENVIRON = {"UPSTREAM_TOKEN": "an upstream's own token"}


def write_schemas(folder: Path, *names: str) -> None:
    """Beside the configuration: `job.json` …"""
    for name in names:
        (folder / f"{name}.json").write_text(json.dumps(_SCHEMAS[name]))
