"""Images that stay encoded and are decoded each time they are used, and only where a crop lies."""

import os
from abc import ABC, abstractmethod
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from io import BytesIO

import numpy as np

from rotnet_keras.data import decoding
from rotnet_keras.data.crops import center_crops
from rotnet_keras.errors import DataError


class LazyImages(ABC):
    """A store that holds only the shapes of images; subclasses say where the encoded images come from.

    Args:
        shapes: (N, 2) int, width and height of each image in its own pixels.
        size: length in pixels that short sides are resized to; boxes count in these pixels.
        channels: 1 (grey) or 3 (RGB).
        whole: whether crops may lie anywhere in an image, not only in its central square.
        report: called with a sentence, once for each image that turns out to be damaged and is replaced by a black one.
    """

    def __init__(
        self,
        shapes: np.ndarray,
        size: int,
        channels: int,
        whole: bool,
        report: Callable[[str], None],
    ) -> None:
        self.shapes, self.size, self.channels, self.whole = shapes, size, channels, whole
        self.shape = (len(shapes), size, size, channels)
        self._report = report
        self._damaged: set[int] = set()
        self._pool = ThreadPoolExecutor(os.cpu_count())

    @abstractmethod
    def contents(self, row: int) -> bytes:
        """Return the encoded image of a row.

        Raises:
            OSError: it cannot be read any more.
        """

    @abstractmethod
    def name(self, row: int) -> str:
        """Return the name of an image, for messages."""

    @property
    @abstractmethod
    def image_bytes(self) -> float:
        """Return the mean size of an encoded image in bytes."""

    def __getitem__(self, rows: np.ndarray, /) -> np.ndarray:
        """Return the central squares of some images: (len(rows), size, size, C) uint8."""
        return self.crops(rows, center_crops(self._extents(rows), self.size), self.size)

    def frames(self, rows: np.ndarray) -> np.ndarray:
        """Return the boxes (len(rows), 4) that crops must lie in: the images or their central squares."""
        extents = self._extents(rows)
        return extents if self.whole else center_crops(extents, self.size)

    def whole_image(self, row: int) -> np.ndarray:
        """Return an image in its own size, upright: (H, W, C) uint8.

        Raises:
            DataError: it cannot be read.
        """
        content = self._contents(row)
        try:
            if isinstance(content, str):
                raise decoding.UnreadableImage(content)
            return decoding.read_whole(BytesIO(content), self.channels)
        except decoding.UnreadableImage as error:
            raise DataError(f"{self.name(row)} cannot be read ({error})") from None

    def crops(self, rows: np.ndarray, boxes: np.ndarray, side: int) -> np.ndarray:
        """Decode a crop of each image; the rest of the image is not decoded.

        Args:
            rows: (n,) the images.
            boxes: (n, 4) the crops, as boxes of `rotnet_keras.data.crops`.
            side: length in pixels that the crops' sides are resized to.

        Returns:
            (n, side, side, C) uint8; black where an image cannot be read.
        """
        images = np.zeros((len(rows), side, side, self.channels), np.uint8)
        for image, row, pixels in zip(images, rows, self.decode(rows, boxes, side), strict=True):
            if not isinstance(pixels, str):
                image[:] = pixels
            elif row not in self._damaged:
                self._damaged.add(row)
                self._report(f"{self.name(row)} cannot be read and is replaced by a black image ({pixels})")
        return images

    def decode(self, rows: np.ndarray, boxes: np.ndarray, side: int) -> list[np.ndarray | str]:
        """Return the same crops one by one, with the reason in place of an image that cannot be read."""
        return list(self._pool.map(lambda row, box: self._decode_one(row, box, side), rows, boxes))

    def _extents(self, rows: np.ndarray) -> np.ndarray:
        """Return the whole images as boxes, in pixels of the resized images."""
        shapes = self.shapes[rows].astype(float)
        lengths = shapes[:, ::-1] * self.size / shapes.min(axis=1, keepdims=True)
        return np.concatenate([np.zeros_like(lengths), lengths], axis=1)

    def _contents(self, row: int) -> bytes | str:
        try:
            return self.contents(row)
        except OSError as error:
            return str(error.strerror or error)

    def _decode_one(self, row: int, box: np.ndarray, side: int) -> np.ndarray | str:
        content = self._contents(row)
        if isinstance(content, str):
            return content
        try:
            top, left, height, width = box.tolist()
            return decoding.read_image(BytesIO(content), self.size, self.channels, (top, left, height, width), side)
        except decoding.UnreadableImage as error:
            return str(error)
