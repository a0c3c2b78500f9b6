"""What is written at each build of the documentation: the reference of recipes, from their schema."""

from typing import Any

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files

from rotnet_keras.config.kinds import KINDS

START = """\
# Recipes: every key

A recipe is a TOML file; `key=value` on the command line replaces a value of it. Unknown keys, wrong types and values
out of range are refused, all at once, with the nearest spelling.
"""


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the reference to the pages."""
    files.append(File.generated(config, "recipes.md", content=reference()))
    return files


def reference() -> str:
    """Tables of the keys of every kind of recipe, and of the sections that they share."""
    parts, sections = [START], dict[str, dict[str, Any]]()
    for name, kind in KINDS.items():
        schema = kind.schema.model_json_schema()
        sections |= schema.get("$defs", {})
        parts += [f"## kind: {name}\n", f"{_sentence(schema)}\n", _table(schema)]
    parts.append("## Sections\n")
    for title in sorted(sections):
        parts += [f"### {title}\n", f"{_sentence(sections[title])}\n", _table(sections[title])]
    return "\n".join(parts)


def _sentence(schema: dict[str, Any]) -> str:
    return schema.get("description", "").split("\n\n")[0].replace("\n", " ")


def _table(schema: dict[str, Any]) -> str:
    rows = ["| key | value | default | what |", "| --- | --- | --- | --- |"]
    required = schema.get("required", [])
    for key, about in schema.get("properties", {}).items():
        default = "needed" if key in required else _default(about)
        rows.append(f"| `{key}` | {_value(about)} | {default} | {about.get('description', '')} |")
    return "\n".join(rows) + "\n"


def _default(about: dict[str, Any]) -> str:
    default = about.get("default")
    return "" if default in (None, {}) or isinstance(default, dict) else f"`{_toml(default)}`"


def _toml(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value).replace("'", '"')


def _value(about: dict[str, Any]) -> str:
    """What may stand there, in words."""
    if "$ref" in about:
        title = about["$ref"].rsplit("/", 1)[-1]
        return f"[{title}](#{title.lower()})"
    if "anyOf" in about:
        return " or ".join(_value(one) for one in about["anyOf"] if one.get("type") != "null")
    if "const" in about:
        return f"`{about['const']}`"
    if "enum" in about:
        return ", ".join(f"`{_toml(one)}`" for one in about["enum"])
    if about.get("type") == "array":
        return f"list of {_value(about.get('items', {}))}"
    words = {"integer": "integer", "number": "number", "string": "text", "boolean": "`true` or `false`"}
    return words.get(about.get("type", ""), "table") + _range(about)


def _range(about: dict[str, Any]) -> str:
    lows = {"minimum": "from {}", "exclusiveMinimum": "above {}"}
    highs = {"maximum": "to {}", "exclusiveMaximum": "below {}"}
    said = [words.format(f"{about[key]:,}") for both in (lows, highs) for key, words in both.items() if key in about]
    return f" {' '.join(said)}" if said else ""
