"""The shapes of images and of crops in recipes: the side of a square, or height and width."""

from typing import Annotated, Any

from pydantic import BeforeValidator, Field


def _check_shape(most: int) -> BeforeValidator:
    """Refuse what is neither the side of a square nor a height and a width, in one message for both."""

    def check(value: Any) -> Any:
        sides = value if isinstance(value, list) and len(value) == 2 else [value]
        if value is not None and not all(type(side) is int and SHORTEST <= side <= most for side in sides):
            raise ValueError(f"expected {SHORTEST} to {most} pixels, or [height, width] of as many, got {value!r}")
        return value

    return BeforeValidator(check)


# The shortest side of images in pixels, the longest one, and the longest one of crops, which may be of larger images.
SHORTEST, LONGEST, LONGEST_CROP = 8, 1024, 4096
Side = Annotated[int, Field(ge=SHORTEST, le=LONGEST)]
CropSide = Annotated[int, Field(ge=SHORTEST, le=LONGEST_CROP)]
# The side of a square in pixels, or height and width.
Shape = Annotated[Side | Annotated[list[Side], Field(min_length=2, max_length=2)] | None, _check_shape(LONGEST)]
CropShape = Annotated[
    CropSide | Annotated[list[CropSide], Field(min_length=2, max_length=2)] | None, _check_shape(LONGEST_CROP)
]


def sides_of(size: int | list[int]) -> tuple[int, int]:
    """Return height and width, given the side of a square or both."""
    return (size, size) if isinstance(size, int) else (size[0], size[1])
