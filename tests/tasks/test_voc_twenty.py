"""The three tasks of PASCAL VOC, overfitted to twenty of its images."""

import numpy as np
import pytest
from PIL import Image
from support.command_line import run_cli
from support.tiny import shared_data
from support.whole_runs import events_of, run_of

TWENTY = 'data.splits={train="train[:20]", validation="validation[:2]", test="train[:20]"}'
LARGER = ("canvas.side=256", "cells=8")
STARTS = {"rotnet": "pretrained.run=rotnet", "random": "backbone.name=compact"}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A folder with a brief pretraining on CIFAR-10."""
    folder = tmp_path_factory.mktemp("voc")
    settings = (f"data.data_dir={shared_data('tfds')}", 'data.splits.test="test[:500]"', "train.steps=400")
    result = run_cli("run", "studies/cpu/pretrain", *settings, "--name", "rotnet", cwd=folder, timeout=1200)
    assert result.returncode == 0, result.stdout + result.stderr
    return folder


@pytest.fixture(scope="module")
def outlined(tmp_path_factory):
    """A VOCdevkit of the first twenty images with masks in which every class covers at least 2 % of the pixels."""
    kit = shared_data("VOCdevkit") / "VOC2012"
    folder = tmp_path_factory.mktemp("kit")
    for part in ("JPEGImages", "SegmentationClass"):
        (folder / part).symlink_to(kit / part)
    names = []
    for name in (kit / "ImageSets/Segmentation/train.txt").read_text().split():
        mask = np.asarray(Image.open(kit / "SegmentationClass" / f"{name}.png"))
        counts = np.bincount(mask[mask < 255], minlength=21)
        if np.all(counts[counts > 0] > 0.02 * counts.sum()):
            names.append(name)
    lists = folder / "ImageSets/Segmentation"
    lists.mkdir(parents=True)
    (lists / "train.txt").write_text("\n".join(names[:20]))
    return folder


def overfit_score(folder, task, start, *settings):
    name = f"{task}-{start}"
    result = run_cli(
        "run", f"studies/cpu/voc_{task}", STARTS[start], *settings, "--name", name, cwd=folder, timeout=3600
    )
    assert result.returncode == 0, result.stdout + result.stderr
    run = run_of(folder, name)
    (test,) = events_of(run, "test")
    losses = [event["loss"] for event in events_of(run, "step")]
    assert losses[-1] < 0.2 * losses[0]
    return test["score"]


@pytest.mark.slow
@pytest.mark.parametrize("start", STARTS)
def test_classification_overfits_twenty_voc_images(folder, start):
    data = (f"data.data_dir={shared_data('tfds')}", TWENTY)
    assert overfit_score(folder, "classification", start, *data, "train.steps=600") > 0.9


@pytest.mark.slow
@pytest.mark.parametrize("start", STARTS)
def test_detection_overfits_twenty_voc_images(folder, start):
    data = (f"data.data_dir={shared_data('tfds')}", TWENTY)
    assert overfit_score(folder, "detection", start, *data, *LARGER, "train.steps=1000") > 0.9


@pytest.mark.slow
@pytest.mark.parametrize("start", STARTS)
def test_segmentation_overfits_twenty_voc_images(folder, outlined, start):
    data = (f"data.name={outlined}", 'data.splits={train="train", test="train"}')
    assert overfit_score(folder, "segmentation", start, *data, "train.batch=5", "train.steps=2000") > 0.9
