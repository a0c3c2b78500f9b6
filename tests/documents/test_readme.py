"""The README is short, no sentence of the documentation stands twice, and what it names is there."""

import re
from pathlib import Path

import pytest

TESTS = Path(__file__).parents[1]
ROOT = TESTS.parent
README = ROOT / "README.md"
PAGES = [README, ROOT / "CONTRIBUTING.md", ROOT / "SECURITY.md", *sorted((ROOT / "docs").rglob("*.md"))]
LINK = re.compile(r"\]\(([^)#\s]+)(?:#[^)]*)?\)")
# A sentence of so many words or fewer may stand twice, as headings and "See the reference." do.
SHORT = 8


def prose(page):
    """The text of a page without code, tables, headings and addresses."""
    text = re.sub(r"^```.*?^```", "\n\n", page.read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL)
    lines = ["" if re.match(r"\s*(\||#|:::|!\[)", line) else line for line in text.splitlines()]
    return re.sub(r"\]\([^)]*\)", "]", "\n".join(lines))


def sentences(page):
    """The sentences of a page as lists of lower-case words; a list item or paragraph ends one, too."""
    for paragraph in re.split(r"\n\s*\n|\n\s*(?:[-*]|\d+\.) ", prose(page)):
        for sentence in re.split(r"(?<=[.!?:])\s+", paragraph):
            yield re.findall(r"[\w'.%-]*\w", sentence.lower())


def test_the_readme_is_read_in_five_minutes():
    assert len(README.read_text(encoding="utf-8").splitlines()) <= 150


def test_no_sentence_stands_twice():
    seen = {}
    for page in PAGES:
        for words in sentences(page):
            if len(words) > SHORT:
                assert tuple(words) not in seen, f"{page} and {seen[tuple(words)]}: {' '.join(words)}"
                seen[tuple(words)] = page
    assert len(seen) > 200


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_linked_files_are_there(page):
    for target in LINK.findall(page.read_text(encoding="utf-8")):
        assert re.match(r"https?://", target) or (page.parent / target).exists(), target


def test_every_promise_names_a_test():
    page = (ROOT / "docs" / "contributing" / "promises.md").read_text(encoding="utf-8")
    promises = re.split(r"^- ", page, flags=re.MULTILINE)[1:]
    assert len(promises) > 20
    for promise in promises:
        named = re.findall(r"`([\w/]+\.py)::(test_\w+)`", promise)
        assert named, promise
        for file, name in named:
            assert re.search(rf"^(async )?def {name}\(", (TESTS / file).read_text(encoding="utf-8"), re.MULTILINE), name


def test_changes_begin_in_files_that_are_there():
    page = (ROOT / "docs" / "contributing" / "index.md").read_text(encoding="utf-8")
    files = re.findall(r"^\| .* \| `([\w/.]+)` \|$", page, re.MULTILINE)
    assert len(files) >= 8
    for file in files:
        assert (ROOT / file).is_file(), file
