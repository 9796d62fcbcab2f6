"""The size of the generated scenes."""

from dataclasses import dataclass

from ffnet_deploy.core.errors import OptionError

SMALLEST = 64
LARGEST = 4096
LONGEST_SHAPE = 4


@dataclass(frozen=True)
class SceneOptions:
    """Height and width of a scene in pixels, each 64..4096, neither more than four times the other."""

    height: int = 256
    width: int = 512

    def __post_init__(self) -> None:
        for name, size in (("height", self.height), ("width", self.width)):
            if not isinstance(size, int) or isinstance(size, bool) or not SMALLEST <= size <= LARGEST:
                raise OptionError(f"scene {name} {size!r}: expected a whole number of pixels in {SMALLEST}..{LARGEST}")
        if max(self.height, self.width) > LONGEST_SHAPE * min(self.height, self.width):
            raise OptionError(
                f"scene size {self.height}x{self.width}: one side is more than {LONGEST_SHAPE} times the other; "
                f"use at least {-(-max(self.height, self.width) // LONGEST_SHAPE)} for the shorter one"
            )
