"""Images that stay encoded and are decoded each time they are used, and only where a crop lies."""

import os
from abc import ABC, abstractmethod
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from io import BytesIO

import numpy as np

from rotnet_keras.data import decoding
from rotnet_keras.data.crops import Fit, center_crops
from rotnet_keras.data.stores import BYTES, NUMBERS
from rotnet_keras.errors import DataError


class LazyImages(ABC):
    """A store that holds only the shapes of images; subclasses say where the encoded images come from.

    Args:
        shapes: (N, 2) int, width and height of each image in its own pixels.
        fit: how images are brought to one shape; boxes count in pixels of the resized images.
        channels: of the images.
        whole: whether crops may lie anywhere in an image, not only in its central part.
        report: called with a sentence, once for each image that turns out to be damaged and is replaced by a black one.
        deep: whether the images have more than 8 bits; their numbers stay as they are.
    """

    def __init__(
        self,
        shapes: np.ndarray,
        fit: Fit,
        channels: int,
        whole: bool,
        report: Callable[[str], None],
        deep: bool = False,
    ) -> None:
        self.shapes, self.fit, self.channels, self.whole, self.deep = shapes, fit, channels, whole, deep
        self.shape = (len(shapes), *fit.shape, channels)
        self.dtype = NUMBERS if deep else BYTES
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
        """Return the central parts of some images: (len(rows), H, W, C)."""
        return self.crops(rows, center_crops(self._extents(rows), self.fit.shape), self.fit.shape)

    def frames(self, rows: np.ndarray) -> np.ndarray:
        """Return the boxes (len(rows), 4) that crops must lie in: the images or their central parts."""
        extents = self._extents(rows)
        return extents if self.whole else center_crops(extents, self.fit.shape)

    def whole_image(self, row: int) -> np.ndarray:
        """Return an image in its own size, upright: (H, W, C).

        Raises:
            DataError: it cannot be read.
        """
        content = self._contents(row)
        try:
            if isinstance(content, str):
                raise decoding.UnreadableImage(content)
            return decoding.read_whole(BytesIO(content), self.channels, self.deep)
        except decoding.UnreadableImage as error:
            raise DataError(f"{self.name(row)} cannot be read ({error})") from None

    def crops(self, rows: np.ndarray, boxes: np.ndarray, side: int | tuple[int, int]) -> np.ndarray:
        """Decode a crop of each image; the rest of the image is not decoded.

        Args:
            rows: (n,) the images.
            boxes: (n, 4) the crops, as boxes of `rotnet_keras.data.crops`.
            side: height and width in pixels that the crops are resized to, or the side of squares.

        Returns:
            (n, height, width, C); black where an image cannot be read.
        """
        shape = Fit.of(side).shape
        images = np.zeros((len(rows), *shape, self.channels), self.dtype)
        for image, row, pixels in zip(images, rows, self.decode(rows, boxes, shape), strict=True):
            if not isinstance(pixels, str):
                image[:] = pixels
            elif row not in self._damaged:
                self._damaged.add(row)
                self._report(f"{self.name(row)} cannot be read and is replaced by a black image ({pixels})")
        return images

    def decode(self, rows: np.ndarray, boxes: np.ndarray, side: tuple[int, int]) -> list[np.ndarray | str]:
        """Return the same crops one by one, with the reason in place of an image that cannot be read."""
        return list(self._pool.map(lambda row, box: self._decode_one(row, box, side), rows, boxes))

    def _extents(self, rows: np.ndarray) -> np.ndarray:
        """Return the whole images as boxes, in pixels of the resized images."""
        return self.fit.extents(self.shapes[rows])

    def _contents(self, row: int) -> bytes | str:
        try:
            return self.contents(row)
        except OSError as error:
            return str(error.strerror or error)

    def _decode_one(self, row: int, box: np.ndarray, side: tuple[int, int]) -> np.ndarray | str:
        content = self._contents(row)
        if isinstance(content, str):
            return content
        try:
            top, left, height, width = box.tolist()
            part = (top, left, height, width)
            return decoding.read_image(BytesIO(content), self.fit, self.channels, part, side, self.deep)
        except decoding.UnreadableImage as error:
            return str(error)
