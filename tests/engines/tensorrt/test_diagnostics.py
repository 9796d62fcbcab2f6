"""What TensorRT logs is told in words that say what to do. The lines are as TensorRT 8.5, 10 and RTX 1.7 write them."""

import re

import pytest

from ffnet_deploy.engines.tensorrt.diagnostics import LogMessage, explain_build, explain_parser

NO_GPU = "[checkMacros.cpp::catchCudaError::250] Error Code 1: Cuda Runtime (cudaError 35: CUDA driver version is insuf"


@pytest.mark.parametrize(
    ("line", "cause", "remedy"),
    [
        (
            "2: [virtualMemoryBuffer.cpp] Error Code 2: OutOfMemory (no further information)",
            "memory ran out",
            "--batch",
        ),
        ("Error Code 1: Cuda Runtime (cudaError 2: out of memory)", "memory ran out", "--workspace"),
        (
            "Error Code 1: Myelin (Tactic Selection: no tactics to implement the operation within workspace limit.",
            "workspace is too small",
            "--workspace",
        ),
        (
            "10: [optimizer.cpp] Error Code 10: Internal Error (Could not find any implementation for node /a/Conv.)",
            "no kernel for a node",
            "--fp16",
        ),
        (NO_GPU, "driver is missing or too old", "update the driver"),
        (
            "Error Code 9: API Usage Error (Target GPU SM 60 is not supported by this TensorRT release.)",
            "does not know this GPU",
            "install the TensorRT",
        ),
        ("Error Code 6: (Unable to load library: libnvinfer_lean.so.1)", "lean runtime", "--version-compatible"),
        ("Error Code 4: Something new", "could not build an engine from a.onnx", "report it with that line"),
    ],
)
def test_build_failures(line: str, cause: str, remedy: str) -> None:
    text = explain_build("TensorRT", "a.onnx", [LogMessage("WARNING", "slow"), LogMessage("ERROR", line)])
    assert cause in text and line in text and re.search(rf"to do .*{re.escape(remedy)}", text), text


def test_a_missing_gpu_does_not_hide_the_reason() -> None:
    messages = [LogMessage("ERROR", "Error Code 2: OutOfMemory"), LogMessage("ERROR", NO_GPU)]
    assert "memory ran out" in explain_build("TensorRT", "a.onnx", messages)


@pytest.mark.parametrize(
    ("reason", "told"),
    [
        ("No importer registered for op: Gelu. Attempting to import as plugin.", "this operator is not known to it"),
        (
            'creator && "Plugin not found, are the plugin name, version, and namespace correct?"',
            "this operator is not known",
        ),
        ("Assertion failed: dims == 3: The boxes tensor must be 3D.", "found    /a (Op): dims == 3: The boxes tensor"),
        (
            "Invalid Node - /a\nITensor::getDimensions: Error Code 4: API Usage Error (/a: `input` and `kernel` must "
            f"be of same type. In validateTypes at /_src/convolutionNode.cpp:88)\n{NO_GPU}",
            "found    /a (Op): `input` and `kernel` must be of same type.\n",
        ),
        ("", "no reason given"),
    ],
)
def test_parser_failures_name_the_node_and_the_reason(reason: str, told: str) -> None:
    text = explain_parser("TensorRT", "a.onnx", [("/a (Op)", reason)])
    assert told in text and "to do" in text and "/a (Op)" in text, text


def test_many_failures_are_counted() -> None:
    text = explain_parser("TensorRT", "a.onnx", [(f"/{index} (Op)", "no") for index in range(9)])
    assert "3 more" in text and "/6 (Op)" not in text
