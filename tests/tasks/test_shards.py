"""Whole runs on images in tar files of WebDataset."""

import subprocess

import pytest
from support.command_line import command, run_cli
from support.shards import samples, write_shard
from support.tiny import TINY_RECIPE, upright_images
from support.whole_runs import assert_same_end, run_of, start, wait_for_step

pytestmark = pytest.mark.long


def test_a_run_on_shards_resumes_to_the_bit(tmp_path):
    images, labels = upright_images(160)
    for number, first in enumerate(range(0, 160, 40)):
        part = slice(first, first + 40)
        write_shard(tmp_path / "shards" / f"train-{number:03d}.tar", samples(images[part], labels[part], first))
    recipe = TINY_RECIPE.format(data="shards/*.tar").replace("validation = 0.2", 'validation = 0.2\ncache = "none"')
    (tmp_path / "shards.toml").write_text(recipe.replace("validation = 0.2", "validation = 0.2\nsize = 16"))
    result, whole = start(tmp_path / "shards.toml")
    assert result.returncode == 0, result.stdout + result.stderr
    assert "WebDataset shards, 4 tar files" in result.stdout
    facts = whole.facts()["data"]
    assert facts["fingerprint"].startswith("shards-1:") and facts["name"] == str(tmp_path / "shards" / "*.tar")
    words = command("run", "shards.toml", "--name", "again")
    process = subprocess.Popen(words, cwd=tmp_path, stdout=subprocess.DEVNULL)
    again = run_of(tmp_path, "again")
    wait_for_step(again, 4)
    process.terminate()
    assert process.wait(60) == 143
    assert run_cli("resume", "again", cwd=tmp_path).returncode == 0
    assert_same_end(again, whole)
