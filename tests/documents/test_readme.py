"""The README names what there is."""

import re
from pathlib import Path

TESTS = Path(__file__).parents[1]
README = (TESTS.parent / "README.md").read_text(encoding="utf-8")


def test_every_promise_names_a_test():
    section = README.split("## Promises\n")[1].split("\n## ")[0]
    promises = [line for line in section.splitlines() if line.startswith("| ") and "---" not in line][1:]
    assert len(promises) > 10
    for promise in promises:
        named = re.findall(r"`(test_\w+\.py)::(test_\w+)`", promise)
        assert named, promise
        for file, name in named:
            assert re.search(rf"^(async )?def {name}\(", (TESTS / file).read_text(encoding="utf-8"), re.MULTILINE), name
