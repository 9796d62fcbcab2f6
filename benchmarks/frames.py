"""How deep a reader must go: functions of this package between a command and the call that does its work.

    python -m benchmarks.frames --graph export/ffnet_seg_nano_scenes.onnx --data data/scenes --work /tmp/frames

Runs ``ffnet-export --fp16 --backend trt-rtx`` as far as TensorRT's ``build_serialized_network``, where TensorRT for RTX
is installed, and ``ffnet-eval --artifact`` as far as the first `OnnxRuntimeEngine.run`; prints each chain and its
length. A worker thread's functions count on top of those of the thread that waits for it.
"""

import argparse
import sys
import threading
from collections.abc import Callable, Sequence
from importlib.util import find_spec
from pathlib import Path
from types import CodeType, FrameType
from typing import Any

import ffnet_deploy
from ffnet_deploy.cli import evaluate, export
from ffnet_deploy.engines.onnxruntime import OnnxRuntimeEngine

_PACKAGE = str(Path(ffnet_deploy.__file__).parent)


class Reached(BaseException):
    """Ends the command at the call that was looked for; no `Exception`, so that nothing takes it for an error."""


def export_chain(work: Path) -> list[str]:
    """Functions from ``ffnet-export`` to TensorRT for RTX's builder; writes the graphs into `work`."""
    source = ("--config", "ffnet_seg_nano_scenes", "--checkpoint", "bundled", "--shape", "64x128", "--limit", "1")
    target = ("--fp16", "--backend", "trt-rtx", "--compute-capability", "8.6", "--out", str(work))
    gate = ("--min-agreement", "0", "--max-drop", "100")
    return chain(export.main, "ffnet-export", (*source, *gate, *target), "build_serialized_network")


def evaluation_chain(graph: Path, data: Path) -> list[str]:
    """Functions from ``ffnet-eval`` to the engine's, for an exported `graph` and labelled `data`."""
    arguments = ("--artifact", str(graph), "--data", str(data), "--limit", "1")
    return chain(evaluate.main, "ffnet-eval", arguments, OnnxRuntimeEngine.run.__code__)


def chain(main: Callable[[], object], name: str, arguments: Sequence[str], target: CodeType | str) -> list[str]:
    """The functions of this package that are active when a command first calls `target`, outermost first.

    Args:
        main: entry point of the command; it is ended by the call.
        name: as the command is typed.
        arguments: what follows.
        target: code of a function of this package, which is counted too, or the name of another package's built-in one.

    Raises:
        RuntimeError: the call never came.
    """
    waiting = threading.get_ident()
    found: list[str] = []

    def hook(frame: FrameType, event: str, called: Any) -> None:
        ours = event == "call" and frame.f_code is target
        if not found and (ours or (event == "c_call" and called.__name__ == target)):
            found.extend(_active(frame))
            if threading.get_ident() != waiting:
                found[:0] = _active(sys._current_frames()[waiting])
            raise Reached

    typed, sys.argv = sys.argv, [name, *arguments]
    threading.setprofile(hook)
    sys.setprofile(hook)
    try:
        main()
    except (SystemExit, Reached):
        pass
    finally:
        sys.setprofile(None)
        threading.setprofile(None)  # type: ignore[arg-type]  # None ends it, as in sys.setprofile
        sys.argv = typed
    if not found:
        raise RuntimeError(f"{name} ended without a call of {target}")
    return found


def _active(frame: FrameType | None) -> list[str]:
    """The functions of this package from the outermost to `frame`, each with its module."""
    names = []
    while frame is not None:
        path = Path(frame.f_code.co_filename)
        if str(path).startswith(_PACKAGE):
            names.append(f"{path.relative_to(_PACKAGE)}: {frame.f_code.co_name}")
        frame = frame.f_back
    return names[::-1]


def main() -> None:
    """Print both chains and their lengths."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="labelled scenes (python -m scenes)")
    parser.add_argument("--graph", type=Path, required=True, help="ONNX graph of ffnet_seg_nano_scenes")
    parser.add_argument("--work", type=Path, required=True, help="folder for the export")
    options = parser.parse_args()
    chains = {"ffnet-eval --artifact to Engine.run": evaluation_chain(options.graph, options.data)}
    if find_spec("tensorrt_rtx"):
        chains["ffnet-export --backend trt-rtx to build_serialized_network"] = export_chain(options.work)
    for title, functions in chains.items():
        print(f"{title}: {len(functions)}", *functions, sep="\n  ")


if __name__ == "__main__":
    main()
