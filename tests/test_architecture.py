"""The house keeps its shape: which modules lie at the top, and that packages import nothing by themselves."""

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "rotnet_keras"
ROOMS = {
    *("cli", "planning", "tasks", "inference", "evaluation", "training"),
    *("reports", "models", "runs", "data", "config"),
}
TOP = {"__init__", "__main__", "errors", "text", "files", "host", "engine"}
# Python files of a package, without those of the packages in it.
MOST_MODULES, MOST_LINES = 20, 400

PACKAGES = [path.parent for root in (PACKAGE, ROOT / "tui" / "rotnet_tui") for path in root.rglob("__init__.py")]


def test_nothing_else_lies_at_the_top():
    assert {path.stem for path in PACKAGE.glob("*.py")} == TOP
    assert {path.parent.name for path in PACKAGE.glob("*/__init__.py")} == ROOMS


@pytest.mark.parametrize("package", PACKAGES, ids=lambda path: str(path.relative_to(ROOT)))
def test_a_package_has_a_docstring_and_imports_nothing(package):
    if package == PACKAGE:
        return
    body = ast.parse((package / "__init__.py").read_text(encoding="utf-8")).body
    assert len(body) == 1 and isinstance(body[0], ast.Expr) and isinstance(body[0].value, ast.Constant)


@pytest.mark.parametrize("package", PACKAGES, ids=lambda path: str(path.relative_to(ROOT)))
def test_no_room_is_crowded_and_no_module_long(package):
    modules = [path for path in package.glob("*.py") if path.stem != "__init__"]
    assert len(modules) <= MOST_MODULES
    lengths = {path.name: len(path.read_text(encoding="utf-8").splitlines()) for path in modules}
    assert {name: lines for name, lines in lengths.items() if lines > MOST_LINES} == {}


def test_nothing_names_a_module_that_is_not_there():
    files = [
        path
        for folder in ("rotnet_keras", "tui", "tests", "scripts", "docs", "examples", "recipes")
        for path in (ROOT / folder).rglob("*")
        if path.suffix in {".py", ".md", ".toml", ".sh", ".jinja", ".ipynb"}
    ]
    public = {"backbone", "load", "load_recipe", "rotate_batch", "run"}
    missing = set()
    for file in [*files, ROOT / "README.md", ROOT / "CONTRIBUTING.md", ROOT / "pyproject.toml"]:
        for name in re.findall(r"\brotnet_keras((?:\.[a-z0-9_]+)+)", file.read_text(encoding="utf-8")):
            first, *rest = name[1:].split(".")
            if (first in public and not rest) or first.startswith("__"):
                continue
            if not _exists([first, *rest]):
                missing.add(f"{file.relative_to(ROOT)}: rotnet_keras{name}")
    assert missing == set()


def _exists(parts):
    """Whether dotted names lead to a package, a module, or something in a module."""
    folder = PACKAGE
    for part in parts:
        if (folder / f"{part}.py").is_file():
            return True
        folder = folder / part
        if not folder.is_dir():
            return False
    return True
