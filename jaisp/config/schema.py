"""The config's JSON schema, for editors and for the documentation."""

import json

from jaisp.config.root import Config


def schema_text() -> str:
    """The JSON schema (draft 2020-12) of a config file, as `config/schema.json` holds it."""
    return json.dumps(_schema(), indent=1, sort_keys=True) + "\n"


def _schema() -> dict:
    schema = Config.model_json_schema()
    schema["$schema"] = "https://json-schema.org/draft/2020-12/schema"
    # One rectangle may stand without the list around it.
    schema["properties"]["sky"]["anyOf"].append({"$ref": "#/$defs/Region"})
    return schema


def reference_text() -> str:
    """Every key of a config with its meaning and default, as docs/config.md holds it."""
    schema = _schema()
    definitions = schema.pop("$defs")
    definitions = {"Config": schema, **definitions}
    lines = ["# Every key of a config", "", INTRODUCTION, ""]
    for name in _in_reading_order(definitions):
        content = definitions[name]
        lines += [f"## {name}", "", content.get("description", "").split("\n\n")[0], ""]
        lines += ["| key | value | default | meaning |", "|---|---|---|---|"]
        required = content.get("required", [])
        for key, entry in content.get("properties", {}).items():
            default = "required" if key in required else _default(entry)
            meaning = entry.get("description", "").replace("|", "\\|")
            lines.append(f"| `{key}` | {_kind(entry)} | {default} | {meaning} |")
        lines.append("")
    return "\n".join(lines)


INTRODUCTION = """\
Made from the models that check a config (`jaisp config --reference`); the same as a JSON schema:
`config/schema.json` (`jaisp config --schema`), which editors can complete and check from. Unknown
keys are errors."""


def _in_reading_order(definitions: dict) -> list[str]:
    """Definitions in the order in which a reader meets them, from the top."""
    order: list[str] = []

    def visit(name: str) -> None:
        if name not in order and "properties" in definitions[name]:
            order.append(name)
            for inner in _references(definitions[name]["properties"]):
                visit(inner)

    visit("Config")
    return order


def _references(entry: object) -> list[str]:
    if isinstance(entry, dict):
        own = [entry["$ref"].rsplit("/", 1)[1]] if "$ref" in entry else []
        return own + [r for k, v in entry.items() if k != "discriminator" for r in _references(v)]
    if isinstance(entry, list):
        return [reference for item in entry for reference in _references(item)]
    return []


def _default(entry: dict) -> str:
    if "default" not in entry:
        return "none"
    default = entry["default"]
    # A section's default is that of each of its keys, in its own table.
    return "see below" if isinstance(default, dict) and default else f"`{json.dumps(default)}`"


def _kind(entry: dict) -> str:
    if "$ref" in entry:
        name = entry["$ref"].rsplit("/", 1)[1]
        return f"[{name}](#{name.lower()})"
    if "const" in entry:
        return f"`{entry['const']}`"
    if "enum" in entry:
        return ", ".join(f"`{value}`" for value in entry["enum"])
    for union in ("anyOf", "oneOf"):
        if union in entry:
            return " or ".join(dict.fromkeys(_kind(option) for option in entry[union]))
    if entry.get("type") == "array":
        return f"list of {_kind(entry.get('items', {}))}"
    if "patternProperties" in entry:
        return f"name: {_kind(next(iter(entry['patternProperties'].values())))}"
    return entry.get("type", "any")
