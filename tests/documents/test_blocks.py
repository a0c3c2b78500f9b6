"""Every block of code in the README and in the guides is executed, in order, on less data and for fewer steps."""

import os
import re
import shutil
import socket
import subprocess
import sys
import time
import tomllib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from support.command_line import run_cli, run_python
from support.shards import samples, write_shard
from support.tiny import TINY_RECIPE, shared_data, upright_images
from support.tiny_recipes import PROBE, STUDY
from support.voc_kit import make_kit

from rotnet_keras.runs.queue import worker_pid

TESTS = Path(__file__).parents[1]
ROOT = TESTS.parent
BLOCK = re.compile(r"^```(\w*)\n(.*?)^```", re.MULTILINE | re.DOTALL)
TUTORIAL, FEW_LABELS = "docs/start/your-images.md", "docs/start/sixty-labels.md"
PAGES = [
    "README.md",
    *(f"docs/start/{name}.md" for name in ("install", "quickstart")),
    *(f"docs/guides/{path.name}" for path in sorted((ROOT / "docs" / "guides").glob("*.md"))),
    *(f"docs/reference/{name}.md" for name in ("data", "recipes", "python")),
    "docs/concepts/shortcuts.md",
    "docs/results.md",
]
# What stands in for the programs that the pages use. Installation is tested by `make wheel-check`, the terminal UI by
# tests/tui/test_tmux.py.
PROGRAMS = {
    "rotnet-keras": f'exec "{sys.executable}" "{TESTS}/support/smaller.py" "$@"',
    "rotnet-tui": f'exec "{sys.executable}" -c "from rotnet_tui.cli import main; main()" --version',
    "make": f'exec /usr/bin/env -i PATH=/usr/bin:/bin make --dry-run --directory "{ROOT}" "$@"',
    "pip": 'case "$*" in "install ." | "install tensorflow[and-cuda]") exit 0;; *) exit 1; esac',
    "srun": 'exec "$@"',
    "python": f'exec "{sys.executable}" "$@"',
}


def blocks(page):
    """The blocks of a page, each with its language."""
    return BLOCK.findall((ROOT / page).read_text(encoding="utf-8"))


def commands_of(kind, block):
    """The commands of a block, and the lines that it says they print."""
    if kind == "sh":
        return block, []
    lines = block.replace("\\\n", "").splitlines()
    typed = [line.removeprefix("$ ") for line in lines if line.startswith("$ ")]
    return "\n".join(typed), [line for line in lines if not line.startswith("$ ")]


def stand_ins(folder):
    """What stands on the pages for something of the reader's, and what it is here."""
    with socket.socket() as free:
        free.bind(("localhost", 0))
        port = free.getsockname()[1]
    return {
        "/path/to/images": f"{folder}/images",
        "/path/to/labelled": f"{folder}/labelled",
        "/path/to/photo.jpg": f"{folder}/photo.png",
        "quickstart-1122-0930": "$(ls runs | grep ^quickstart-)",
        "TFDS_DATA_DIR=... ": "",
        # tests/tasks/test_slurm.py starts a Slurm.
        "--submit slurm": "--submit local",
        "run cifar_nin --name big": "run quickstart probe=[] --name big",
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
    folder = tmp_path / "work"
    folder.mkdir()
    monkeypatch.chdir(folder)
    return folder


def type_in(commands):
    """Run commands in a shell and return their output."""
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


def assert_printed(expected, output):
    """Assert that the first word of every line is in the output, unless it has a digit, which differs here."""
    for line in expected:
        word = line.split()[0]
        assert word == "..." or re.search(r"\d", word) or word.lower() in output.lower(), f"{line}\n{output}"


def write_images(folder, seed):
    """Write images with an upright, in a folder for each class, and a list of their labels beside it."""
    pixels, labels = upright_images(64, seed=seed, size=40)
    rows = ["file,label"]
    for number, (image, label) in enumerate(zip(pixels, labels, strict=True)):
        file = folder / f"class{label}" / f"{number:02d}.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image).save(file)
        rows.append(f"{file},class{label}")
    folder.with_name("labels.csv").write_text("\n".join(rows))
    shutil.copy(file, folder.with_name("photo.png"))


@pytest.fixture(scope="module")
def prepared(tmp_path_factory, tiny_data):
    """A folder with what a reader of the guides has by then: images, a run called NAME, a study, a backbone."""
    folder = tmp_path_factory.mktemp("prepared")
    write_images(folder / "labelled", seed=1)
    write_images(folder / "images", seed=0)
    pixels, labels = upright_images(64, seed=2, size=40)
    for number in range(4):
        part = slice(16 * number, 16 * number + 16)
        write_shard(folder / "shards" / f"train-{number:04d}.tar", samples(pixels[part], labels[part]))
    make_kit(folder / "kit", 12, size=(200, 160))
    shutil.copy(ROOT / "recipes" / "folder.toml", folder / "images.toml")
    for name, text in (("tiny", TINY_RECIPE), ("probe", PROBE), ("study", STUDY)):
        (folder / f"{name}.toml").write_text(text.format(data=tiny_data) if name != "study" else text)
    for words in (("study.toml", "scale=cpu", "--name", "study"), ("images.toml", "train.steps=3", "--name", "NAME")):
        result = run_cli("run", *words, cwd=folder)
        assert result.returncode == 0, result.stdout + result.stderr
    run_python(
        f"import rotnet_keras\nrotnet_keras.backbone('alexnet', (227, 227, 3)).save({str(folder / 'backbone.keras')!r})"
    )
    return folder


@pytest.mark.slow
@pytest.mark.parametrize("page", PAGES)
def test_the_blocks_of_a_page(page, folder, prepared, monkeypatch):
    monkeypatch.setenv("TFDS_DATA_DIR", str(shared_data("tfds")))
    shutil.copytree(prepared, folder, dirs_exist_ok=True)
    if page == "README.md":
        (folder / "images.toml").unlink()  # The README makes its own.
    found = blocks(page)
    assert found
    for kind, block in found:
        assert kind in ("sh", "console", "python", "toml", "text"), block
        if kind == "toml":
            tomllib.loads(block)
        elif kind == "python":
            block = re.sub(r"runs/quickstart-\d+-\d+", lambda _: str(*folder.glob("runs/quickstart-*")), block)
            run_python(block.replace('train={"epochs": 3}', 'train={"steps": 3}, probe=[]'))
        elif kind != "text":
            commands, expected = commands_of(kind, block)
            for stands, here in stand_ins(folder).items():
                commands = commands.replace(stands, here)
            assert_printed(expected, type_in(commands))
    while worker_pid(folder / "runs"):
        time.sleep(0.5)


@pytest.mark.slow
def test_the_blocks_of_the_tutorial(folder):
    scenes = shared_data("scenes15")
    (folder / "photos").mkdir()
    for number, file in enumerate(sorted(scenes.glob("train/*/*.jpg"))[::8]):
        (folder / "photos" / f"{number:03d}.jpg").symlink_to(file)
    for number, file in enumerate(sorted(scenes.glob("test/*/*.jpg"))):
        target = folder / ("new" if number % 4 else "labelled") / file.parent.name
        target.mkdir(parents=True, exist_ok=True)
        (target / file.name).write_bytes(file.read_bytes())
    (folder / "album").mkdir()
    for number, file in enumerate(sorted(scenes.glob("test/tallbuilding/*.jpg"))):
        with Image.open(file) as image:
            image.rotate(90 * number, expand=True).save(folder / "album" / file.name, quality=95)
    found = 0
    for kind, block in blocks(TUTORIAL):
        assert kind == "console", block
        commands, expected = commands_of(kind, block)
        # After a few steps no prediction is confident.
        assert_printed(expected, type_in(commands.replace("upright album --model photos", "upright album")))
        found += 1
    assert found >= 8


@pytest.mark.slow
def test_the_blocks_of_the_tutorial_with_few_labels(folder):
    files = sorted(shared_data("scenes15").glob("test/*/*.jpg"))
    np.random.default_rng(0).shuffle(files)
    for number, file in enumerate(files):
        for copy in (folder / "photos" / f"{number:03d}.jpg", folder / "true" / file.parent.name / f"{number:03d}.jpg"):
            copy.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(file, copy)
    found = 0
    for kind, block in blocks(FEW_LABELS):
        if kind == "python":
            told = run_python(block)
        else:
            assert kind == "console", block
            commands, expected = commands_of(kind, block)
            assert_printed(expected, type_in(commands))
        found += 1
    assert found >= 8 and told.startswith("540 photos, ")
    assert len(list(folder.glob("labelled/*/*.jpg"))) == 60
