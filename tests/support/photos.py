"""Images with the statistics of photographs."""

from io import BytesIO

import numpy as np
from PIL import Image


def photo(width=500, height=375, seed=0):
    """Noise with a spectrum of 1/frequency, as that of photographs."""
    rng = np.random.default_rng(seed)
    frequencies = np.hypot(np.fft.fftfreq(height)[:, None], np.fft.rfftfreq(width)[None])
    frequencies[0, 0] = 1
    planes = np.fft.irfft2(np.fft.rfft2(rng.normal(size=(3, height, width))) / frequencies, (height, width))
    return Image.fromarray(np.clip(127 + 50 * planes / planes.std(), 0, 255).astype(np.uint8).transpose(1, 2, 0))


def saved(image, kind="JPEG", **options):
    """The file of an image, in memory."""
    buffer = BytesIO()
    image.save(buffer, kind, **({"quality": 90} if kind == "JPEG" else {}) | options)
    return BytesIO(buffer.getvalue())
