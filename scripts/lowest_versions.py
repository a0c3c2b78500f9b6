#!/usr/bin/env python3
"""Print the lowest version that pyproject.toml allows of each package, one a line, as pip reads them."""

import re
import tomllib
from pathlib import Path

PROJECT = Path(__file__).resolve().parents[1] / "pyproject.toml"


def lowest_versions() -> dict[str, str]:
    """Return the lower bound of each package that is needed, by its name as pyproject.toml spells it."""
    requirements = tomllib.loads(PROJECT.read_text(encoding="utf-8"))["project"]["dependencies"]
    found = (re.fullmatch(r"([\w.-]+)>=([\w.]+)(,<\d+)?", each) for each in requirements)
    return {match[1]: match[2] for match in found if match}


if __name__ == "__main__":
    for name, version in lowest_versions().items():
        print(f"{name}=={version}")
