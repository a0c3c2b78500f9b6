"""What the packages import is what pyproject.toml declares."""

import ast
import re
import sys
import tomllib
from importlib.metadata import packages_distributions
from pathlib import Path

import rotnet_tui
from packaging.requirements import Requirement
from packaging.version import Version

import rotnet_keras

PROJECT = tomllib.loads((Path(__file__).parents[1] / "pyproject.toml").read_text(encoding="utf-8"))["project"]
LOWEST = Path(__file__).parents[1] / "constraints-lowest.txt"
# The packages themselves, and a part of pydantic that is distributed by itself.
KNOWN = {"rotnet_keras", "rotnet_tui", "pydantic_core"} | sys.stdlib_module_names
# Versions that a lower bound may not go below, and what older ones do.
FLOORS = {
    "keras": ("3.15.1", "run code from a model file"),
    "pillow": ("12.3.0", "write past their memory on a damaged image"),
    "jinja2": ("3.1.6", "run code from a template"),
    "pyarrow": ("23.0.1", "write to freed memory on a damaged IPC file"),
    "aiohttp": ("3.14.3", "have known holes as a server"),
    "onnx": ("1.21", "read files outside of the folder of a model"),
}


def names(requirements):
    return {re.match(r"[\w.-]+", requirement)[0].lower().replace("_", "-") for requirement in requirements}


def imported():
    for package in (rotnet_keras, rotnet_tui):
        for file in sorted(Path(package.__file__).parent.rglob("*.py")):
            for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
                if isinstance(node, ast.Import):
                    yield from ((alias.name.split(".")[0], file) for alias in node.names)
                elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
                    yield node.module.split(".")[0], file


def test_what_is_imported_is_declared():
    """Where nothing else is installed, an import that rests on another package's dependency may fail one day."""
    extras = (each for name, each in PROJECT["optional-dependencies"].items() if name != "dev")
    declared = names([*PROJECT["dependencies"], *(requirement for each in extras for requirement in each)])
    homes = packages_distributions()
    missing = {
        f"{file.name}: {module}"
        for module, file in imported()
        if module not in KNOWN and not names(homes.get(module, [module])) & declared
    }
    assert not missing


def test_the_file_of_lowest_versions_has_every_lower_bound():
    """`make lock-lowest` writes it."""
    pinned = dict(line.split("==") for line in LOWEST.read_text(encoding="utf-8").splitlines())
    found = {name.lower().replace("_", "-"): version for name, version in pinned.items()}
    for requirement in PROJECT["dependencies"]:
        name, version = re.match(r"([\w.-]+)>=([\w.]+)", requirement).groups()
        assert Version(found[name.lower().replace("_", "-")]) == Version(version), (
            f"{requirement}: run make lock-lowest"
        )


def test_no_lower_bound_goes_below_a_version_with_known_holes():
    requirements = [
        *PROJECT["dependencies"],
        *(each for extra in PROJECT["optional-dependencies"].values() for each in extra),
    ]
    found = {}
    for requirement in map(Requirement, requirements):
        if requirement.name.lower() in FLOORS:
            bounds = [Version(each.version) for each in requirement.specifier if each.operator in (">=", "==")]
            found.setdefault(requirement.name.lower(), []).append(min(bounds, default=Version("0")))
    assert found.keys() == FLOORS.keys()
    for name, bounds in found.items():
        lowest, reason = FLOORS[name]
        assert min(bounds) >= Version(lowest), f"{name}: versions before {lowest} {reason}"
