"""Whether rotation is a sensible task: shortcuts are found where there are some, and none where there are none."""

import io

import numpy as np
import pytest
from PIL import Image, ImageDraw
from support.tiny import shared_data
from support.whole_runs import events_of, start

from rotnet_keras.evaluation.suitability.ambiguity import (
    log_probabilities_by_image,
    most_ambiguous,
    per_image_statistics,
    rotation_probabilities,
)
from rotnet_keras.evaluation.suitability.image_shortcuts import image_shortcuts
from rotnet_keras.evaluation.suitability.network_shortcuts import network_shortcuts
from rotnet_keras.runs.suitability import CHECKS, check_results, summary

ANGLES = (0, 90, 180, 270)


def textures(count=100, side=32, seed=0):
    """Colour noise that is alike in all directions and has no upright."""
    rng = np.random.default_rng(seed)
    frequencies = np.fft.fftfreq(2 * side)
    distance = np.hypot(frequencies[:, None], frequencies)
    distance[0, 0] = np.inf
    clouds = np.fft.ifft2(np.fft.fft2(rng.normal(size=(count, 4, 2 * side, 2 * side))) / distance).real
    clouds = clouds[..., :side, :side] / clouds.std(axis=(2, 3), keepdims=True)
    colours = clouds[:, :1] + 0.4 * clouds[:, 1:]
    return np.clip(128 + 40 * colours, 0, 255).round().astype(np.uint8).transpose(0, 2, 3, 1)


def watermark(images):
    side = images.shape[1]
    mark = Image.new("L", (side, side))
    ImageDraw.Draw(mark).text((side - 22, side - 12), "(c)", fill=128)
    share = np.asarray(mark)[:, :, None] / 255
    return (images * (1 - share) + 255 * share).astype(np.uint8)


def border(images):
    return np.concatenate([255 - images[:, :1] // 8, images[:, 1:]], axis=1)


def letterbox(images):
    """Every fourth image."""
    boxed = images.copy()
    for number, image in enumerate(boxed[::4]):
        image[: 3 + number % 4] = image[-3 - number % 4 :] = 0
    return boxed


def as_jpeg(images, quality, subsampling):
    """Crops of larger JPEG images, not aligned with the blocks."""
    side, stored = images.shape[1], []
    for image in images:
        file = io.BytesIO()
        larger = Image.fromarray(np.pad(image, ((3, 5), (4, 4), (0, 0)), mode="reflect"))
        larger.save(file, "JPEG", quality=quality, subsampling=subsampling)
        stored.append(np.asarray(Image.open(file))[3 : 3 + side, 4 : 4 + side])
    return np.stack(stored)


def scan_lines(images):
    lines = images.astype(int)
    lines[:, ::2] -= 8
    return np.clip(lines, 0, 255).astype(np.uint8)


def rotated(images, angles=ANGLES):
    return np.concatenate([np.rot90(images, angle // 90, (1, 2)) for angle in angles])


def event_of(images, angles=ANGLES, reliance=None):
    found = image_shortcuts(images, rotated(images, angles), angles)
    right = [0] * len(angles) + [len(images)]
    return {"angles": angles, "right": right, "giveaways": found, "reliance": reliance or {}}


def likely(event):
    names = {name: key for key, name in CHECKS.items()}
    return {names[finding.name] for finding in check_results(event) if finding.likely}


@pytest.mark.parametrize(
    ("spoil", "found"),
    [
        (lambda images: images, set()),
        (watermark, {"marks"}),
        (border, {"marks"}),
        (letterbox, {"bars"}),
        (lambda images: as_jpeg(images, 15, 0), {"grid"}),
        (lambda images: as_jpeg(images, 90, 1), {"sharpness"}),
        (lambda images: images[..., :1], set()),
        (lambda images: np.concatenate([images, images[..., :2]], axis=3)[:, 2:18, 2:18], set()),
    ],
    ids=["clean", "watermark", "border", "letterbox", "JPEG", "colour", "grey", "five channels, small"],
)
def test_image_shortcuts_are_found_and_no_others(spoil, found):
    assert likely(event_of(spoil(textures()))) == found


def test_a_shortcut_to_the_axis_is_none_where_all_angles_share_one():
    event = event_of(letterbox(textures()), (0, 180))
    assert likely(event) == set() and set(event["giveaways"]) == {"marks", "grid"}
    assert likely(event_of(watermark(textures()), (0, 180))) == {"marks"}


@pytest.mark.slow
def test_real_images_have_no_shortcuts():
    from rotnet_keras.config.sections import Data
    from rotnet_keras.data.datasets import load

    cifar = load(Data(name="cifar10", data_dir=str(shared_data("tfds"))))
    scenes = load(Data(name=str(shared_data("scenes15")), size=64))
    for dataset in (cifar, scenes):
        images = dataset.train.images(np.arange(0, 300))
        assert likely(event_of(images)) == set()


def upright_ones(images):
    """Images with a bright bar in the middle of their upper half, which shows what is up."""
    marked = images.copy()
    marked[:, 8:11, 12:20] = 255
    return marked


@pytest.mark.parametrize(
    ("looks_at", "shown", "rim"),
    [(np.s_[:, 8:11, 12:20], upright_ones, False), (np.s_[:, :1], border, True)],
    ids=["content", "border"],
)
def test_a_network_that_relies_on_the_rim_is_found(looks_at, shown, rim):
    def network(copies):
        back = [np.rot90(copies, -quarter, (1, 2))[looks_at].mean((1, 2, 3)) for quarter in range(4)]
        scores = np.stack(back, axis=1)
        return scores / scores.sum(axis=1, keepdims=True)

    images = shown(textures())
    reliance = network_shortcuts(network, rotated(images), ANGLES)
    assert ("rim" in likely(event_of(images, reliance=reliance))) == rim


@pytest.mark.parametrize(("part", "rest", "found"), [(0.44, 0.32, set()), (0.7, 0.2, {"rim"}), (0.3, 0.1, set())])
def test_a_rim_may_be_followed_as_often_as_its_area_justifies(part, rest, found):
    reliance = {"rim": {"part": part, "rest": rest}}
    assert likely(event_of(textures(), reliance=reliance)) == found


def test_a_network_that_relies_on_scan_lines_fails_on_smoothed_images():
    def network(copies):
        grey = copies.astype(float).mean(3)
        down, across = (np.abs(np.diff(grey, axis=axis)).mean((1, 2)) for axis in (1, 2))
        return np.stack([down > across, across >= down], axis=1).astype(float)

    images = scan_lines(textures())
    angles = (0, 90)
    reliance = network_shortcuts(network, rotated(images, angles), angles)
    assert "finest" in likely({**event_of(images, angles, reliance), "giveaways": {}})


def test_images_with_two_uprights_are_the_most_ambiguous():
    sure, either = [0.94, 0.02, 0.02, 0.02], [0.49, 0.01, 0.49, 0.01]
    probabilities = np.array([np.roll(p, turn) for turn in range(4) for p in (sure, either, sure)])
    rotations, combined = rotation_probabilities(log_probabilities_by_image(probabilities), ANGLES)
    assert rotations == list(ANGLES) and combined.argmax(axis=1).tolist() == [0, 0, 0]
    assert most_ambiguous(probabilities, ANGLES)[0] == {"image": 1, "turns": [[0, 0.49], [180, 0.49]]}
    assert per_image_statistics(probabilities, ANGLES) == {
        "right": [0, 0, 1, 0, 2],
        "half_turns": 1.0,
        "undecided": 0.3333,
    }


@pytest.mark.parametrize("angles", [(0, 180), (90, 270), (0, 90), (180, 45, 0)])
def test_copies_agree_on_a_rotation_whatever_the_angles(angles):
    """A model that is always correct finds every image upright."""
    rotations, combined = rotation_probabilities(
        log_probabilities_by_image(np.repeat(np.eye(len(angles)), 5, axis=0)), angles
    )
    assert [rotations[i] for i in combined.argmax(axis=1)] == [0] * 5


def test_a_run_measures_suitability_and_its_report_shows_it(finished):
    result, run = finished
    (event,) = events_of(run, "suitability")
    assert event["step"] == 30 and event["split"] == "validation" and sum(event["right"]) == event["images"] == 40
    assert set(event["giveaways"]) == {"marks", "sharpness", "bars"}
    assert f"Is rotation a sensible task for these images? {summary(event)}" in result.stdout
    page = (run.path / "report.html").read_text()
    assert page.count("Is rotation a sensible task for these images?") == 1 and "The most ambiguous images" in page
    with Image.open(run.samples / event["file"]) as strip:
        assert strip.size == (16 * event["tile"], event["tile"])


@pytest.mark.slow
def test_with_few_images_a_run_measures_each_but_no_shortcuts(tiny_recipe, tmp_path):
    np.savez(tmp_path / "few.npz", images=textures(12, 16))
    result, run = start(tiny_recipe, f"data.name={tmp_path / 'few.npz'}", "train.steps=2", "rotation.angles=[90,270]")
    assert result.returncode == 0, result.stderr
    (event,) = events_of(run, "suitability")
    assert event["split"] == "training" and event["giveaways"] == event["reliance"] == {}
    assert sum(event["right"]) == event["images"] == len(event["tiles"]) == 10
