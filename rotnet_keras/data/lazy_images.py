"""Images that stay encoded, and are decoded, only where they are looked at, each time they are asked for."""

import os
from abc import ABC, abstractmethod
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from io import BytesIO

import numpy as np

from rotnet_keras.data import decoding, jpegs
from rotnet_keras.data.crops import central
from rotnet_keras.engine import tf
from rotnet_keras.errors import DataError


class EncodedImages(ABC):
    """A store that holds nothing but the images' shapes; where their bytes come from is a subclass's business.

    Args:
        shapes: (N, 2) int, width and height.
        plain: (N,) bool, of those that TensorFlow can decode; the others are left to Pillow.
        size: what the short sides are resized to, in pixels; boxes count in these.
        channels: 1 (grey) or 3 (RGB).
        whole: whether crops may lie anywhere in an image, not only in its central square.
        report: told, once for each, of images that turn out to be damaged; they are shown as black.
    """

    def __init__(
        self,
        shapes: np.ndarray,
        plain: np.ndarray,
        size: int,
        channels: int,
        whole: bool,
        report: Callable[[str], None],
    ) -> None:
        self.shapes, self.plain, self.size, self.channels, self.whole = shapes, plain, size, channels, whole
        self.shape = (len(shapes), size, size, channels)
        self._report = report
        self._damaged: set[int] = set()
        self._pool = ThreadPoolExecutor(os.cpu_count())

    @abstractmethod
    def contents(self, row: int) -> bytes:
        """The encoded image at a row.

        Raises:
            OSError: it is gone.
        """

    @abstractmethod
    def name(self, row: int) -> str:
        """What the image at a row is called."""

    @property
    @abstractmethod
    def image_bytes(self) -> float:
        """What an image takes, encoded, on average."""

    def __getitem__(self, rows: np.ndarray, /) -> np.ndarray:
        """The central squares: (len(rows), size, size, C) uint8."""
        return self.cut(rows, central(self._extents(rows), self.size), self.size)

    def frames(self, rows: np.ndarray) -> np.ndarray:
        """What crops may lie in, the images or their central squares: (len(rows), 4) boxes."""
        extents = self._extents(rows)
        return extents if self.whole else central(extents, self.size)

    def whole_image(self, row: int) -> np.ndarray:
        """(H, W, C) uint8, upright, in its own size.

        Raises:
            DataError: it cannot be read.
        """
        source = self._contents(row)
        try:
            if isinstance(source, str):
                raise decoding.UnreadableImage(source)
            return decoding.read_whole(BytesIO(source), self.channels)
        except decoding.UnreadableImage as error:
            raise DataError(f"{self.name(row)} cannot be read ({error})") from None

    def cut(self, rows: np.ndarray, boxes: np.ndarray, side: int) -> np.ndarray:
        """Parts of the images, of which the rest is not computed.

        Args:
            boxes: (n, 4), see `crops`.
            side: what each is resized to, in pixels.

        Returns:
            (n, side, side, C) uint8.
        """
        images = np.zeros((len(rows), side, side, self.channels), np.uint8)
        for image, row, pixels in zip(images, rows, self.decoded(rows, boxes, side), strict=True):
            if not isinstance(pixels, str):
                image[:] = pixels
            elif row not in self._damaged:
                self._damaged.add(row)
                self._report(f"{self.name(row)} cannot be read and is shown as black ({pixels})")
        return images

    def decoded(self, rows: np.ndarray, boxes: np.ndarray, side: int) -> list[np.ndarray | str]:
        """The same, with the reason in the place of an image that cannot be read."""
        sources = list(self._pool.map(self._contents, rows))
        parts = [
            (i, (source, (int(self.shapes[row, 0]), int(self.shapes[row, 1])), tuple(boxes[i].tolist())))
            for i, (row, source) in enumerate(zip(rows, sources, strict=True))
            if self.plain[row] and isinstance(source, bytes)
        ]
        results: dict[int, np.ndarray | str] = {i: why for i, why in enumerate(sources) if isinstance(why, str)}
        try:
            pixels = jpegs.decode([part for _, part in parts], self.size, side, self.channels)
            results |= zip([i for i, _ in parts], pixels, strict=True)
        except tf.errors.OpError:
            # One damaged file fails the batch; Pillow finds out which.
            pass
        others = [i for i in range(len(rows)) if i not in results]
        results |= zip(others, self._pool.map(lambda i: self._read(sources[i], boxes[i], side), others), strict=True)
        return [results[i] for i in range(len(rows))]

    def _extents(self, rows: np.ndarray) -> np.ndarray:
        """The whole images as boxes."""
        shapes = self.shapes[rows].astype(float)
        lengths = shapes[:, ::-1] * self.size / shapes.min(axis=1, keepdims=True)
        return np.concatenate([np.zeros_like(lengths), lengths], axis=1)

    def _contents(self, row: int) -> bytes | str:
        try:
            return self.contents(row)
        except OSError as error:
            return str(error.strerror or error)

    def _read(self, source: bytes | str, box: np.ndarray, side: int) -> np.ndarray | str:
        assert isinstance(source, bytes)
        try:
            top, left, height, width = box.tolist()
            return decoding.read_image(BytesIO(source), self.size, self.channels, (top, left, height, width), side)
        except decoding.UnreadableImage as error:
            return str(error)
