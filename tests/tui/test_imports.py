"""Imports between the modules of the terminal UI."""

import ast
from graphlib import TopologicalSorter
from pathlib import Path

import rotnet_tui

FOLDER = Path(rotnet_tui.__file__).parent
# As the contract in pyproject.toml, which does not count imports under TYPE_CHECKING.
LAYERS = ("cli", "app", "screens", "tabs", "widgets", "state")


def imports():
    """For each module, the modules of the terminal UI that it imports: at the top, in functions, for type checkers."""
    files = {".".join(path.relative_to(FOLDER.parent).with_suffix("").parts): path for path in FOLDER.rglob("*.py")}
    graph = {}
    for module, path in files.items():
        names = set()
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                names |= {alias.name for alias in node.names}
            elif isinstance(node, ast.ImportFrom):
                assert not node.level, f"{module}: relative import"
                names |= {str(node.module)} | {f"{node.module}.{alias.name}" for alias in node.names}
        graph[module] = names & files.keys()
    return graph


def test_no_module_is_in_an_import_cycle():
    graph = imports()
    assert graph["rotnet_tui.app"] >= {"rotnet_tui.messages", "rotnet_tui.screens.run"}
    TopologicalSorter(graph).prepare()  # Raises CycleError.


def test_imports_run_downward_even_those_for_type_checkers():
    def layer(module):
        name = module.split(".")[1] if "." in module else ""
        return LAYERS.index(name) if name in LAYERS else len(LAYERS)

    upward = [
        f"{module} imports {other}"
        for module, others in imports().items()
        for other in others
        if layer(other) < layer(module) and module != "rotnet_tui.__main__"
    ]
    assert not upward
