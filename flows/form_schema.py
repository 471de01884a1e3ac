"""How Prefect draws the form of a configuration: a group opens when it is to be changed, and every field starts empty.

So a form sends what a person changed, and nothing else. What an empty field stands for is what `start_from` has.
"""

from collections.abc import Iterator, Mapping
from typing import Any

from prefect.utilities.callables import ParameterSchema

from alignment.config import AlignConfig
from flows.start_from import FIELD, offered

REFERENCE = "#/definitions/"
UNCHANGED = "As in start_from"
START = (
    "What the run starts from: a preset, or a registered version (models:/name/3, name@champion), or the id of an "
    "MLflow run. Below, open what is to be different, and fill in that alone: an empty field stays as in start_from, "
    "or at its default where that says nothing of it."
)
BOUNDS = {
    "exclusiveMinimum": "over {}",
    "minimum": "at least {}",
    "exclusiveMaximum": "under {}",
    "maximum": "at most {}",
}


def draw(parameters: ParameterSchema) -> ParameterSchema:
    """A flow's parameters with `start_from` and the groups of the configuration as a person is to fill them in."""
    whole = AlignConfig.model_json_schema(ref_template=f"{REFERENCE}{{model}}")
    own = {FIELD: _start()} | {name: _field(name, value) for name, value in whole["properties"].items()}
    others = {name: value for name, value in parameters.properties.items() if name not in own}
    ordered = enumerate((own | others).items())
    return parameters.model_copy(
        update={
            "properties": {name: value | {"position": position} for position, (name, value) in ordered},
            "required": [],
            "definitions": parameters.definitions | {name: _group(value) for name, value in whole["$defs"].items()},
        }
    )


def _start() -> dict[str, Any]:
    return {
        "title": FIELD,
        "description": START,
        "default": "",
        "anyOf": [
            {"title": "Preset", "type": "string", "enum": list(offered())},
            {"title": "Version or run", "type": "string"},
        ],
    }


def _group(schema: Mapping[str, Any]) -> dict[str, Any]:
    """A group's definition; its title is what the button says that opens it."""
    fields = {name: _field(name, value) for name, value in schema["properties"].items()}
    return {**schema, "title": "Change", "properties": fields}


def _field(name: str, schema: Mapping[str, Any]) -> dict[str, Any]:
    """A field as the form shows it: under the name that errors and files have for it, empty, with bounds in words."""
    found = {key: value for key, value in schema.items() if key not in {"default", "title", "type", "$ref"}}
    found["title"] = name
    if "$ref" in schema:
        told = _told_of(schema)
        return (
            found | told | {"default": None, "anyOf": [{"type": "null", "title": UNCHANGED}, {"$ref": schema["$ref"]}]}
        )
    words = "; ".join(filter(None, (", ".join(_bounds(schema)), _default(schema))))
    if words:
        found["description"] = f"{schema.get('description', '')} [{words}]".strip()
    if schema.get("type") == "boolean":  # a switch would be sent though nobody touched it
        return found | {"enum": [True, False]}
    return found | ({"type": schema["type"]} if "type" in schema else {})


def _told_of(schema: Mapping[str, Any]) -> dict[str, Any]:
    """The description of a group, where its field has none of its own."""
    if "description" in schema:
        return {}
    definitions = AlignConfig.model_json_schema()["$defs"]
    return {"description": definitions[schema["$ref"].removeprefix(REFERENCE)].get("description", "")}


def _bounds(schema: Mapping[str, Any]) -> Iterator[str]:
    for key, words in BOUNDS.items():
        if key in schema:
            yield words.format(f"{schema[key]:,}" if isinstance(schema[key], int) else schema[key])


def _default(schema: Mapping[str, Any]) -> str:
    value = schema.get("default")
    if value is None or value in ("", [], {}):
        return ""
    return f"default {str(value).lower() if isinstance(value, bool) else value}"
