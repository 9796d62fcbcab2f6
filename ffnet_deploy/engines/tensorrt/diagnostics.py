"""What TensorRT logs: captured while an engine is built or run, and explained with what to do."""

import re
import threading
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from functools import cache
from typing import Any

from ffnet_deploy.core.errors import FFNetDeployError
from ffnet_deploy.engines.cuda import find_device


@dataclass(frozen=True)
class LogMessage:
    """A line that TensorRT logged.

    Attributes:
        severity: ``"INTERNAL_ERROR"``, ``"ERROR"``, ``"WARNING"`` or ``"INFO"``.
        text: The line.
    """

    severity: str
    text: str

    @property
    def is_error(self) -> bool:
        """Whether something failed."""
        return self.severity in ("ERROR", "INTERNAL_ERROR")


@cache
def logger(trt: Any) -> Any:
    """The one logger of the module `trt`: TensorRT keeps the first it is given. Read it with `listen`."""

    class Log(trt.ILogger):  # type: ignore[misc]  # the base is known only at run time
        def __init__(self) -> None:
            trt.ILogger.__init__(self)
            self.listeners: list[list[LogMessage]] = []
            self.lock = threading.Lock()

        def log(self, severity: Any, text: str) -> None:
            name = str(severity).rpartition(".")[2]
            if name == "VERBOSE":
                return
            with self.lock:
                for listener in self.listeners:
                    listener.append(LogMessage(name, text))

    return Log()


@contextmanager
def listen(trt: Any) -> Iterator[list[LogMessage]]:
    """A list that grows by every line, but verbose ones, that TensorRT logs while the block runs."""
    log, messages = logger(trt), list[LogMessage]()
    with log.lock:
        log.listeners.append(messages)
    try:
        yield messages
    finally:
        with log.lock:
            log.listeners = [listener for listener in log.listeners if listener is not messages]


_MESSAGES = 50


class LogCapture:
    """Keeps what TensorRT logs from now until `close`, the last lines of it, and notes for the user."""

    def __init__(self, trt: Any) -> None:
        self._listening = ExitStack()
        self._messages: list[LogMessage] = self._listening.enter_context(listen(trt))
        self._lock = threading.Lock()
        self.notes: tuple[str, ...] = ()
        """What is to be known of the results, each once."""

    def add_note(self, note: str) -> None:
        """Add to `notes`."""
        with self._lock:
            if note not in self.notes:
                self.notes = (*self.notes, note)

    def explain(self) -> str:
        """What TensorRT complained of last."""
        errors = [message.text for message in self._messages if message.is_error]
        return errors[-1] if errors else "it gave no reason"

    @property
    def messages(self) -> list[LogMessage]:
        """The last lines."""
        return list(self._messages)

    def trim(self) -> None:
        """Forget all but the last lines."""
        del self._messages[:-_MESSAGES]

    def close(self) -> None:
        """Stop listening; calling it twice is harmless."""
        self._listening.close()


_NO_CUDA = re.compile(r"catchCudaError|cudaError 35")
_CAUSES: tuple[tuple[str, str, str], ...] = (
    (
        r"libnvinfer_lean",
        "a version-compatible engine carries TensorRT's lean runtime, and its library is not installed",
        "install it (pip install tensorrt-lean for TensorRT), or leave --version-compatible out",
    ),
    (
        r"within workspace limit|nsufficient workspace|scratch memory.*workspace|workspace.*too small",
        "the workspace is too small for a layer",
        "raise --workspace, or leave it out",
    ),
    (
        r"OutOfMemory|out of memory|cudaErrorMemoryAllocation|MEM_ALLOC_FAILED|FAILED_ALLOCATION|cudaError 2\b",
        "the GPU's memory ran out",
        "end what else uses the GPU, set --workspace, or use smaller --shape and --batch",
    ),
    (
        r"cudaError 35|driver version is insufficient",
        "the NVIDIA driver is missing or too old for this TensorRT",
        "update the driver, or build on a machine that has one",
    ),
    (
        r"SM \S+ is not supported|no kernel image|unsupported SM|not supported by this TensorRT release",
        "this TensorRT does not know this GPU",
        "install the TensorRT that supports it",
    ),
    (
        r"CHECK\(status == CUDA_SUCCESS\)",
        "this way of building asks the CUDA driver, and there is none",
        "leave --refit and --strip-weights out, or build on a machine with a GPU",
    ),
    (
        r"ould not find any implementation for node",
        "TensorRT has no kernel for a node in the types that the graph asks for",
        "raise --workspace, or export the graph in another precision: --fp16, --bf16, --int8",
    ),
)
_PARSER_REMEDY = "to do    export it again with --opset 17, or use a newer TensorRT"


def errors_of(messages: Sequence[LogMessage]) -> list[str]:
    """The lines that tell of failures, each once, without those that only say that there is no GPU."""
    lines = dict.fromkeys(message.text.strip() for message in messages if message.is_error)
    return [line for line in lines if not _NO_CUDA.search(line)] or list(lines)


def explain_start(title: str, version: str, messages: Sequence[LogMessage]) -> str:
    """Why `title` gives no builder or runtime on a machine that has a GPU: its CUDA is newer than the driver's."""
    driver, cuda = "no", 0
    with suppress(FFNetDeployError):
        code = find_device().driver_version
        driver, cuda = f"{code // 1000}.{code % 1000 // 10}", code // 1000
    lines = [line.text.strip() for line in messages if line.is_error]
    found = lines[-1] if lines else "it gave no reason"
    fitting = f", or install the build for CUDA {cuda}: pip install tensorrt-cu{cuda}" if cuda in (12, 13) else ""
    return (
        f"{title} {version} cannot start: the NVIDIA driver here (CUDA {driver}) and this {title} do not fit.\n"
        f"  found    {found}\n"
        f"  to do    update the driver to one for the CUDA that this {title} was built with{fitting}"
    )


def explain_build(title: str, name: str, messages: Sequence[LogMessage]) -> str:
    """Why `title` could not build an engine from the graph `name`."""
    lines = errors_of(messages)
    for pattern, cause, remedy in _CAUSES:
        found = next((line for line in lines if re.search(pattern, line, re.IGNORECASE)), None)
        if found is not None:
            return f"{title} could not build an engine from {name}: {cause}.\n  found    {found}\n  to do    {remedy}"
    found = lines[-1] if lines else "no reason given"
    return (
        f"{title} could not build an engine from {name}.\n  found    {found}\n"
        "  to do    try --optimization-level 3 and no --workspace; if it stays, report it with that line"
    )


def explain_parser(title: str, name: str, failures: Sequence[tuple[str, str]]) -> str:
    """Why `title` could not read the graph `name`: (node, reason) of each failure."""
    shown = "\n".join(f"  found    {node}: {_first_reason(reason)}" for node, reason in failures[:6])
    more = f"\n  found    {len(failures) - 6} more" if len(failures) > 6 else ""
    return f"{title} cannot take the graph {name}:\n{shown}{more}\n  {_PARSER_REMEDY}"


def _first_reason(text: str) -> str:
    """The line of the parser's text that gives the reason."""
    if re.search(r"Plugin not found|No importer registered", text):
        return "this operator is not known to it"
    lines = [line.strip() for line in text.splitlines() if line.strip() and not _NO_CUDA.search(line)]
    reasons = [line for line in lines if not line.startswith("Invalid Node")] or lines or ["no reason given"]
    usage = re.search(r"API Usage Error \((?:[^()]*?: )?(.*?) In \w+ at ", reasons[0])
    return usage[1] if usage else reasons[0].removeprefix("Assertion failed: ")
