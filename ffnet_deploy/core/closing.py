"""What holds a device, a file or a process, and gives it back at the end of a ``with`` statement."""

from abc import ABC, abstractmethod
from typing import TypeVar

Held = TypeVar("Held", bound="Closing")


class Closing(ABC):
    """Base of classes whose `close` a ``with`` statement calls."""

    @abstractmethod
    def close(self) -> None:
        """Give back what is held; calling it twice is harmless."""

    def __enter__(self: Held) -> Held:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
