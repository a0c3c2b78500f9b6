"""The examples, where this package cannot be imported."""

import json
from pathlib import Path

import pytest
from support.command_line import run_python

EXAMPLES = Path(__file__).parents[2] / "examples"
ALONE = "import sys; sys.modules['rotnet_keras'] = None\n"


@pytest.mark.slow
def test_fine_tuning_needs_keras_alone(finished, tiny_data):
    code = f"{ALONE}import runpy; runpy.run_path({str(EXAMPLES / 'finetune.py')!r}, run_name='__main__')"
    options = ("--data", tiny_data, "--labels-per-class", 5, 10, "--steps", 20, "--tap", "conv1", "--seeds", 2)
    told = run_python(code, finished[1].backbone, *options).splitlines()
    assert [line.split(":")[0] for line in told[:4]] == [f"{n} of each, seed {s}" for n in (5, 10) for s in (0, 1)]
    single = [float(line.split()[5]) for line in told[:4]]
    count, mean, _, spread, *_ = told[-1].split()
    assert count == "10" and float(mean) == pytest.approx(sum(single[2:]) / 2, abs=0.15) and float(mean) > 25
    assert float(spread) == pytest.approx(abs(single[2] - single[3]) / 2**0.5, abs=0.15)


@pytest.mark.long
def test_the_notebook_runs_from_top_to_bottom(finished, tiny_data):
    """Its cells are plain Python: no kernel is needed to run them one after the other."""
    notebook = json.loads((EXAMPLES / "finetune.ipynb").read_text(encoding="utf-8"))
    cells = [cell for cell in notebook["cells"] if cell["cell_type"] == "code"]
    assert not any(cell["outputs"] or cell["execution_count"] for cell in cells)
    given = {"BACKBONE": str(finished[1].backbone), "DATA": str(tiny_data), "LABELS_PER_CLASS": 10, "STEPS": 4}
    code = f"{ALONE}sys.path.insert(0, {str(EXAMPLES)!r})\n"
    for cell in cells:
        code += "".join(cell["source"]) + "\n"
        if "parameters" in cell["metadata"].get("tags", []):
            code += "\n".join(f"{name} = {value!r}" for name, value in given.items()) + "\n"
    told = run_python(code, MPLBACKEND="Agg")
    assert "40 labelled images of 200, 40 to test on" in told and "conv2 (8, 8, 32)" in told
    assert "fine-tuned: " in told and "from scratch: " in told
