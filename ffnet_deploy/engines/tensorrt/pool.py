"""The lanes of one engine, lent to one thread at a time, and the order in which everything is given back."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from ffnet_deploy.core.errors import OptionError
from ffnet_deploy.engines.tensorrt.lane import Lane
from ffnet_deploy.engines.tensorrt.tensors import Shape, Tensors


class Pool:
    """An engine and its lanes.

    Args:
        runtime: TensorRT's runtime; the pool owns it.
        engine: the deserialised engine; the pool owns it.
        tensors: input and output of the engine.
        name: of the engine, for messages.
    """

    def __init__(self, runtime: Any, engine: Any, tensors: Tensors, name: str) -> None:
        self._runtime = runtime
        self._engine = engine
        self.tensors = tensors
        """Input and output of the engine."""
        self._name = name
        self._idle: list[Lane] = []
        self._lent: dict[Lane, int] = {}
        self._closed = False
        self._changed = threading.Condition()

    def __len__(self) -> int:
        return len(self._idle) + len(self._lent)

    def add(self, lane: Lane) -> None:
        """Take over `lane`."""
        self._idle.append(lane)

    @contextmanager
    def lane(self, shape: Shape) -> Iterator[Lane]:
        """A lane for inputs of `shape`, for the calling thread alone while the block runs; waits until one is free.

        Raises:
            OptionError: the engine is closed, or the thread holds all lanes itself and would wait for ever.
        """
        lane = self._acquire(shape)
        try:
            yield lane
        finally:
            self._give_back(lane)

    def _acquire(self, shape: Shape) -> Lane:
        with self._changed:
            while True:
                if self._closed:
                    raise OptionError(f"the engine of {self._name} is closed")
                suited = self._suited(shape)
                idle = [lane for lane in self._idle if lane in suited]
                if idle:
                    lane = self._best(idle, shape)
                    self._idle.remove(lane)
                    self._lent[lane] = threading.get_ident()
                    return lane
                if all(self._lent[lane] == threading.get_ident() for lane in suited):
                    raise OptionError(
                        "all contexts of the engine are in use by unfinished streams of this thread.\n"
                        "  to do    finish them first, or open the engine with more contexts"
                    )
                self._changed.wait()

    def _suited(self, shape: Shape) -> list[Lane]:
        """Lanes whose profile holds `shape`; all, one of which then changes its profile, where none does.

        Up to TensorRT 8.5 a profile serves one context only, so that a free lane cannot take that of a busy one.
        """
        lanes = [*self._idle, *self._lent]
        return [lane for lane in lanes if self.tensors.profiles[lane.profile].holds(shape)] or lanes

    def _best(self, idle: list[Lane], shape: Shape) -> Lane:
        """The lane set to `shape` already, so that its graphs serve; else an unused one; else the one used longest ago.

        (`_idle` is in the order of use.)
        """
        ready = [lane for lane in idle if lane.shape == shape] or [lane for lane in idle if lane.shape is None]
        return (ready or idle)[0]

    def _give_back(self, lane: Lane) -> None:
        with self._changed:
            del self._lent[lane]
            self._idle.append(lane)
            if self._closed and not self._lent:
                self._release()
            self._changed.notify_all()

    def close(self) -> None:
        """Release everything once no thread runs it any more; nothing new starts. Calling it twice is harmless."""
        with self._changed:
            self._closed = True
            if not self._lent:
                self._release()
            self._changed.notify_all()

    def _release(self) -> None:
        """Contexts, engine, runtime, and only then the memory and streams that they worked on."""
        for lane in self._idle:
            lane.release_context()
        self._engine = None
        self._runtime = None
        for lane in self._idle:
            lane.release_memory()
        self._idle = []
