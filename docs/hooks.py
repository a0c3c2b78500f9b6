"""What each build of the documentation adds: references from the code, and pages from elsewhere in the repository.

The command line's reference comes from the commands, that of recipes from their schema and from the shipped recipes.
`results/`, `examples/`, the changelog and what is said about security are published as they are.
"""

import re
from pathlib import Path
from typing import Any

import click
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

from rotnet_keras.cli.main import GROUPS, app
from rotnet_keras.config.finder import kind_and_title, shipped_recipes
from rotnet_keras.config.kinds import KINDS

ROOT = Path(__file__).parents[1]
# Folders outside docs/ that are published, and which of their files.
PUBLISHED = {"results": (".md", ".png", ".svg", ".sh", ".py", ".html"), "examples": (".py", ".ipynb")}


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the files that lie outside the folder of the documentation."""
    for folder, suffixes in PUBLISHED.items():
        for path in sorted((ROOT / folder).rglob("*")):
            if path.suffix in suffixes:
                files.append(File.generated(config, path.relative_to(ROOT).as_posix(), abs_src_path=str(path)))
    files.append(File.generated(config, "changelog.md", abs_src_path=str(ROOT / "CHANGELOG.md")))
    files.append(File.generated(config, "security.md", abs_src_path=str(ROOT / "SECURITY.md")))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Add what is generated to a page, and point its links at where published files are on the site."""
    if page.file.src_uri == "reference/command-line.md":
        markdown += command_reference()
    elif page.file.src_uri == "reference/recipes.md":
        markdown += recipe_list() + key_reference()
    if page.file.src_uri.startswith("results/"):
        # A link to a folder means something on a disk, not on a site.
        return re.sub(r"\[([^\]]*)\]\([\w/]+\)", r"\1", markdown)
    if page.file.src_uri == "security.md":
        return markdown.replace("](docs/", "](")
    markdown = re.sub(r"\]\(((?:\.\./)*)\.\./SECURITY\.md", r"](\1security.md", markdown)
    folders = "|".join(PUBLISHED)
    return re.sub(rf"\]\(((?:\.\./)*)\.\./(?=(?:{folders})/)", r"](\1", markdown)


def command_reference() -> str:
    """A section for each command, by group: usage, what it does, arguments, options, examples."""
    parts = []
    context = click.Context(app, info_name="rotnet-keras")
    for group, names in GROUPS.items():
        parts.append(f"\n## {group}\n")
        for name in names:
            command = app.get_command(context, name)
            assert command is not None
            parts += _command(command, name, context)
    return "\n".join(parts)


def _command(command: click.Command, name: str, parent: click.Context) -> list[str]:
    """A command's section; that of a group is followed by its commands'."""
    context = click.Context(command, info_name=name, parent=parent)
    usage = " ".join(command.collect_usage_pieces(context))
    parts = [f"### {context.command_path.removeprefix('rotnet-keras ')}\n"]
    parts.append(f"```text\n{context.command_path} {usage}\n```\n")
    parts.append(_paragraphs(command.help))
    if isinstance(command, click.Group):
        for sub in command.list_commands(context):
            found = command.get_command(context, sub)
            assert found is not None
            parts += _command(found, sub, context)
        return parts
    records = [p.get_help_record(context) for p in command.get_params(context) if p.name != "help"]
    rows = [f"| `{left}` | {_cell(right)} |" for left, right in filter(None, records)]
    if rows:
        parts.append("\n".join(["| argument or option | what |", "| --- | --- |", *rows]) + "\n")
    if examples := getattr(command, "examples", ()):
        parts.append("\n".join(["```sh", *examples, "```"]) + "\n")
    return parts


def _paragraphs(text: str | None) -> str:
    """A command's help without the line breaks of its source."""
    paragraphs = (text or "").replace("\b\n", "").strip().split("\n\n")
    return "\n\n".join(" ".join(paragraph.split()) for paragraph in paragraphs) + "\n"


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|")


def recipe_list() -> str:
    """Tables of the recipes and of the studies that ship, with their titles."""
    found = {name: kind_and_title(path) for name, path in shipped_recipes().items()}
    tops = {name: about for name, about in found.items() if "/" not in name}
    studies = {name: about for name, about in found.items() if about[0] == "study"}
    parts = ["", "## Shipped recipes\n", _titles(tops), "## Shipped studies\n"]
    parts += ["[The paper's experiments](../guides/paper.md) says what each asks.\n", _titles(studies)]
    return "\n".join(parts)


def _titles(recipes: dict[str, tuple[str, str]]) -> str:
    rows = [f"| `{name}` | {kind} | {_cell(title)} |" for name, (kind, title) in recipes.items()]
    return "\n".join(["| recipe | kind | what |", "| --- | --- | --- |", *rows]) + "\n"


def key_reference() -> str:
    """Tables of the keys of every kind of recipe, and of the sections that they share."""
    parts, sections = ["\n## Kinds of recipe\n"], dict[str, dict[str, Any]]()
    for name, kind in KINDS.items():
        schema = kind.schema.model_json_schema()
        sections |= schema.get("$defs", {})
        parts += [f"### kind: {name}\n", f"{_first_paragraph(schema)}\n", _table(schema)]
    parts.append("## Sections\n")
    for title in sorted(sections):
        parts += [f"### {title}\n", f"{_first_paragraph(sections[title])}\n", _table(sections[title])]
    return "\n".join(parts)


def _first_paragraph(schema: dict[str, Any]) -> str:
    return schema.get("description", "").split("\n\n")[0].replace("\n", " ")


def _table(schema: dict[str, Any]) -> str:
    rows = ["| key | value | default | what |", "| --- | --- | --- | --- |"]
    required = schema.get("required", [])
    for key, about in schema.get("properties", {}).items():
        default = "required" if key in required else _default(about)
        rows.append(f"| `{key}` | {_value(about)} | {default} | {_cell(about.get('description', ''))} |")
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
    bounds = [words.format(f"{about[key]:,}") for both in (lows, highs) for key, words in both.items() if key in about]
    return f" {' '.join(bounds)}" if bounds else ""
