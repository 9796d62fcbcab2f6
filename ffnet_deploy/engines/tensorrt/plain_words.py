"""What TensorRT logs, in words that say what to do."""

import re
from collections.abc import Sequence

from ffnet_deploy.engines.tensorrt.flavour import Message

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
        "raise --workspace, or choose another --precision",
    ),
)
_PARSER_REMEDY = "to do    export it again with --opset 17, or use a newer TensorRT"


def errors_of(messages: Sequence[Message]) -> list[str]:
    """The lines that tell of failures, each once, without those that only say that there is no GPU."""
    lines = dict.fromkeys(message.text.strip() for message in messages if message.is_error)
    return [line for line in lines if not _NO_CUDA.search(line)] or list(lines)


def explain_build(title: str, name: str, messages: Sequence[Message]) -> str:
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
