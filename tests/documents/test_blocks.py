"""Every block of code in the README and in the tutorial is run, in order, on less data and for fewer steps."""

import os
import re
import socket
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image
from support.command_line import run_cli, run_python
from support.tiny import TINY_RECIPE, shared_data, upright_images
from support.tiny_recipes import PROBE, STUDY
from support.voc_kit import make_kit

TESTS = Path(__file__).parents[1]
ROOT = TESTS.parent
BLOCK = re.compile(r"^```(\w*)\n(.*?)^```", re.MULTILINE | re.DOTALL)
# What the pages type, and what is run of it. What installs is tried by `make wheel-check`, what draws on a terminal by
# test_tui_tmux.py.
PROGRAMS = {
    "rotnet-keras": f'exec "{sys.executable}" "{TESTS}/support/smaller.py" "$@"',
    "rotnet-tui": f'exec "{sys.executable}" -c "from rotnet_tui.cli import main; main()" --version',
    "make": f'exec /usr/bin/env -i PATH=/usr/bin:/bin make --dry-run --directory "{ROOT}" "$@"',
    "pip": f'test "$*" = "install ." && test -f "{ROOT}/pyproject.toml"',
    "srun": 'exec "$@"',
    "python": f'exec "{sys.executable}" "$@"',
}


def blocks(page):
    """What is in each, with its language."""
    return BLOCK.findall((ROOT / page).read_text(encoding="utf-8"))


def commands_of(kind, block):
    """What a block has people type, and what it says they are told."""
    if kind == "sh":
        return block, []
    lines = block.replace("\\\n", "").splitlines()
    typed = [line.removeprefix("$ ") for line in lines if line.startswith("$ ")]
    return "\n".join(typed), [line for line in lines if not line.startswith("$ ")]


def stand_ins(folder):
    """What stands in the README for something of the reader's, and what it is here."""
    with socket.socket() as free:
        free.bind(("localhost", 0))
        port = free.getsockname()[1]
    return {
        "/path/to/images": f"{folder}/images",
        "/path/to/labelled": f"{folder}/images",
        "backbone.run=NAME": "backbone.run=$(ls runs | grep ^images)",
        "pretrained.run=NAME": "pretrained.run=$(ls runs | grep ^images)",
        "probe NAME": "probe $(ls runs | grep ^images)",
        "TFDS_DATA_DIR=... ": "",
        "STUDY...": "runs/study",
        "=DIR": f"={shared_data('tfds')}",
        "VOCdevkit/VOC2012": f'{folder}/kit data.classes=\'["bus","cat","dog"]\'',
        "run RECIPE": "run quickstart probe=[]",
        '"a:8470", "b:8470"': f'"localhost:{port}"',
    }


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """An empty folder to type in, in which the programs that the pages name are the ones above."""
    programs = tmp_path / "programs"
    programs.mkdir()
    for name, script in PROGRAMS.items():
        (programs / name).write_text(f"#!/bin/sh\n{script}\n")
        (programs / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{programs}:{os.environ['PATH']}")
    monkeypatch.setenv("PYTHONPATH", str(TESTS))
    folder = tmp_path / "place"
    folder.mkdir()
    monkeypatch.chdir(folder)
    return folder


def type_in(commands):
    """Run commands in a shell; their output."""
    result = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", commands],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=1200,
        check=False,
    )
    assert result.returncode == 0, f"{commands}\n{result.stdout[-3000:]}"
    return result.stdout


def labelled_pictures(folder):
    """Pictures with an upright, in a folder for each class, and a list of their labels."""
    pixels, labels = upright_images(48, size=40)
    rows = ["file,label"]
    for number, (image, label) in enumerate(zip(pixels, labels, strict=True)):
        file = folder / "images" / f"class{label}" / f"{number:02d}.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image).save(file)
        rows.append(f"{file},class{label}")
    (folder / "labels.csv").write_text("\n".join(rows))


def small_study(folder, data):
    """A finished study to be collected."""
    for name, text in (("tiny", TINY_RECIPE), ("probe", PROBE), ("study", STUDY)):
        (folder / f"{name}.toml").write_text(text.format(data=data) if name != "study" else text)
    result = run_cli("run", "study.toml", "scale=cpu", "--name", "study", cwd=folder)
    assert result.returncode == 0, result.stdout + result.stderr


@pytest.mark.slow
def test_those_of_the_readme(folder, tiny_data, monkeypatch):
    monkeypatch.setenv("TFDS_DATA_DIR", str(shared_data("tfds")))
    labelled_pictures(folder)
    small_study(folder, tiny_data)
    make_kit(folder / "kit", 12, size=(200, 160))
    run_python("import rotnet_keras\nrotnet_keras.backbone('alexnet', (227, 227, 3)).save('backbone.keras')")
    known = stand_ins(folder)
    found = 0
    for kind, block in blocks("README.md"):
        assert kind in ("sh", "console", "python", "text"), block
        if kind == "python":
            block = re.sub(r"runs/quickstart-\d+-\d+", lambda _: str(*folder.glob("runs/quickstart-*")), block)
            block = block.replace('"epochs": 3', '"steps": 3')
            run_python(f"import numpy as np\nimages = np.zeros((2, 32, 32, 3), np.uint8)\n{block}")
        elif kind != "text":
            commands, told = commands_of(kind, block)
            for stands, here in known.items():
                commands = commands.replace(stands, here)
            output = type_in(commands)
            assert all(line.split()[0] in output for line in told if line != "...")
        found += kind != "text"
    assert found >= 10


@pytest.mark.slow
def test_those_of_the_tutorial(folder):
    """The first word of every line that it says is printed is printed here, too, unless it is a number."""
    scenes = shared_data("scenes15")
    (folder / "photos").mkdir()
    for number, file in enumerate(sorted(scenes.glob("train/*/*.jpg"))[::8]):
        (folder / "photos" / f"{number:03d}.jpg").symlink_to(file)
    for number, file in enumerate(sorted(scenes.glob("test/*/*.jpg"))):
        place = folder / ("new" if number % 4 else "labelled") / file.parent.name
        place.mkdir(parents=True, exist_ok=True)
        (place / file.name).write_bytes(file.read_bytes())
    (folder / "album").mkdir()
    for number, file in enumerate(sorted(scenes.glob("test/tallbuilding/*.jpg"))):
        with Image.open(file) as picture:
            picture.rotate(90 * number, expand=True).save(folder / "album" / file.name, quality=95)
    found = 0
    for kind, block in blocks("docs/tutorial.md"):
        assert kind == "console", block
        commands, told = commands_of(kind, block)
        # After a few steps no turn is sure.
        output = type_in(commands.replace("upright album --network photos", "upright album"))
        for line in told:
            word = line.split()[0]
            assert word == "..." or re.search(r"\d", word) or word.lower() in output.lower(), f"{line}\n{output}"
        found += 1
    assert found >= 8
