"""CUDA graphs of an execution context: a batch's many kernel launches, captured once and replayed as one."""

from collections import OrderedDict, deque
from collections.abc import Callable, Hashable
from contextlib import suppress

from ffnet_deploy.core.errors import FFNetDeployError
from ffnet_deploy.engines.cuda import Cuda, CudaError, Handle

_KEPT = 8
_REMEMBERED = 32


class Graphs:
    """The captured launches of one execution context at its present shape.

    A key's first launch runs plainly, because TensorRT finishes what a new shape needs in the first run and that work
    must stay out of the graph; its second one is captured. When something cannot be captured, everything runs plainly
    from then on and `on_failure` is told why. A graph holds addresses and shapes as they were: `clear` on a change.
    One that still runs ends afterwards.

    Args:
        cuda: the device.
        enabled: whether to capture at all.
        on_failure: called once with the reason in words.
    """

    def __init__(self, cuda: Cuda, enabled: bool, on_failure: Callable[[str], None]) -> None:
        self._cuda = cuda
        self.enabled = enabled
        self._on_failure = on_failure
        self._graphs: OrderedDict[Hashable, Handle] = OrderedDict()
        self._warm: deque[Hashable] = deque(maxlen=_REMEMBERED)

    def __len__(self) -> int:
        return len(self._graphs)

    def launch(self, key: Hashable, stream: Handle, enqueue: Callable[[], None]) -> None:
        """Do what `enqueue` gives to `stream`, by the graph of `key` where there is one.

        Raises:
            CudaError: the GPU fails.
            ArtifactError: the engine fails.
        """
        if self.enabled and key not in self._graphs and key in self._warm:
            self._capture(key, stream, enqueue)
        if key in self._graphs:
            self._graphs.move_to_end(key)
            self._cuda.launch(self._graphs[key], stream)
            return
        enqueue()
        if self.enabled and key not in self._warm:
            self._warm.append(key)

    def _capture(self, key: Hashable, stream: Handle, enqueue: Callable[[], None]) -> None:
        try:
            with self._cuda.capture(stream) as captured:
                enqueue()
        except FFNetDeployError as error:
            self.clear()
            self.enabled = False
            self._on_failure(f"runs without CUDA graphs: {str(error).splitlines()[0]}")
            return
        self._graphs[key] = captured[0]
        if len(self._graphs) > _KEPT:
            self._end(next(iter(self._graphs)))

    def clear(self) -> None:
        """End all graphs."""
        self._warm.clear()
        for key in list(self._graphs):
            self._end(key)

    def _end(self, key: Hashable) -> None:
        with suppress(CudaError):  # on a device that failed nothing can be released, and the rest must go on
            self._cuda.destroy_graph(self._graphs.pop(key))
