"""Tar files in the convention of WebDataset."""

import io
import tarfile

import numpy as np
from PIL import Image


def encoded(pixels, kind="png"):
    """The bytes of an image file."""
    buffer = io.BytesIO()
    Image.fromarray(np.asarray(pixels)).save(buffer, "JPEG" if kind == "jpg" else kind)
    return buffer.getvalue()


def shade(value, size=8):
    """The bytes of a grey PNG file."""
    return encoded(np.full((size, size), value, np.uint8))


def write_shard(path, members):
    """Write a tar file of regular members, given as names with their contents, or as `tarfile.TarInfo`."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w") as archive:
        for name, content in members:
            member = name if isinstance(name, tarfile.TarInfo) else tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return path


def samples(images, labels, first=0):
    """The members of samples: a PNG file and a .cls file each."""
    for number, (image, label) in enumerate(zip(images, labels, strict=True), first):
        yield f"{number:06d}.cls", str(label).encode()
        yield f"{number:06d}.png", encoded(image)
