"""A folder in the layout of PASCAL VOC's development kit, with pictures that a small net learns at once."""

import numpy as np
from PIL import Image

OBJECT = "<object><name>{}</name><difficult>{}</difficult><bndbox><xmin>{}</xmin><ymin>{}</ymin><xmax>{}</xmax>"
OBJECT += "<ymax>{}</ymax></bndbox></object>"
COLOURS = {"bus": (220, 30, 30), "cat": (30, 220, 30), "dog": (30, 30, 220)}


def make_kit(root, count, size=(48, 40), seed=0):
    """Grey noise with one or two rectangles in the colours of their classes; the last quarter is the list `val`.

    Args:
        size: width and height of the pictures, in pixels.
    """
    rng = np.random.default_rng(seed)
    for folder in ("JPEGImages", "Annotations", "SegmentationClass", "ImageSets/Main", "ImageSets/Segmentation"):
        (root / folder).mkdir(parents=True, exist_ok=True)
    names = [f"{number:06d}" for number in range(count)]
    width, height = size
    classes = list(COLOURS)
    for name in names:
        pixels = rng.integers(90, 160, (height, width, 3)).astype(np.uint8)
        mask = np.zeros((height, width), np.uint8)
        objects = []
        for which in rng.choice(len(classes), rng.integers(1, 3), replace=False):
            tall, wide = rng.integers(height // 3, height // 2), rng.integers(width // 3, width // 2)
            top, left = rng.integers(0, height - tall), rng.integers(0, width - wide)
            pixels[top : top + tall, left : left + wide] = COLOURS[classes[which]]
            mask[top : top + tall, left : left + wide] = which + 1
            objects.append(OBJECT.format(classes[which], 0, left + 1, top + 1, left + wide, top + tall))
        Image.fromarray(pixels).save(root / "JPEGImages" / f"{name}.jpg", quality=95)
        (root / "Annotations" / f"{name}.xml").write_text(f"<annotation>{''.join(objects)}</annotation>")
        Image.fromarray(mask).save(root / "SegmentationClass" / f"{name}.png")
    for task in ("Main", "Segmentation"):
        lists = root / "ImageSets" / task
        (lists / "train.txt").write_text("\n".join(names[: count * 3 // 4]))
        (lists / "val.txt").write_text("\n".join(names[count * 3 // 4 :]))
    return root
