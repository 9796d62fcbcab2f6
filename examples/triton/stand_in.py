"""Answers the client in the place of Triton Inference Server, where no server can be run: stand_in.py REPOSITORY PORT.

Speaks Triton's gRPC protocol for ONNX models and runs them with ONNX Runtime on the CPU. For tests alone.
"""

import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import onnxruntime
from tritonclient.grpc import service_pb2, service_pb2_grpc
from tritonclient.utils import np_to_triton_dtype, triton_to_np_dtype

TYPES = {"tensor(uint8)": "UINT8", "tensor(uint16)": "UINT16", "tensor(float)": "FP32", "tensor(float16)": "FP16"}


class Models(service_pb2_grpc.GRPCInferenceServiceServicer):
    """The first version of each model of a repository."""

    def __init__(self, repository: Path) -> None:
        self.sessions = {
            path.parents[1].name: onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
            for path in repository.glob("*/1/model.onnx")
        }

    def session(self, name: str, context: Any) -> onnxruntime.InferenceSession:
        """The model called `name`; otherwise the call ends as Triton would end it."""
        if name not in self.sessions:
            context.abort(grpc.StatusCode.NOT_FOUND, f"Request for unknown model: '{name}' is not found")
        return self.sessions[name]

    def ModelMetadata(self, request: Any, context: Any) -> Any:  # noqa: N802  Triton's name
        """Names, types and shapes of inputs and outputs."""
        session = self.session(request.name, context)
        reply = service_pb2.ModelMetadataResponse(name=request.name, versions=["1"])
        for described, tensors in ((reply.inputs, session.get_inputs()), (reply.outputs, session.get_outputs())):
            for tensor in tensors:
                shape = [side if isinstance(side, int) else -1 for side in tensor.shape]
                described.add(name=tensor.name, datatype=TYPES[tensor.type], shape=shape)
        return reply

    def ModelInfer(self, request: Any, context: Any) -> Any:  # noqa: N802  Triton's name
        """Run the model."""
        session = self.session(request.model_name, context)
        feed = {
            tensor.name: np.frombuffer(raw, triton_to_np_dtype(tensor.datatype)).reshape(tensor.shape)
            for tensor, raw in zip(request.inputs, request.raw_input_contents, strict=True)
        }
        reply = service_pb2.ModelInferResponse(model_name=request.model_name, model_version="1")
        names = [tensor.name for tensor in session.get_outputs()]
        for name, value in zip(names, session.run(names, feed), strict=True):
            reply.outputs.add(name=name, datatype=np_to_triton_dtype(value.dtype), shape=value.shape)
            reply.raw_output_contents.append(value.tobytes())
        return reply


def main() -> None:
    """Serve until killed."""
    repository, port = Path(sys.argv[1]), sys.argv[2]
    server = grpc.server(ThreadPoolExecutor(2), options=[("grpc.max_receive_message_length", -1)])
    service_pb2_grpc.add_GRPCInferenceServiceServicer_to_server(Models(repository), server)
    server.add_insecure_port(f"localhost:{port}")
    server.start()
    print(f"serving {repository} on port {port}", flush=True)
    server.wait_for_termination()


if __name__ == "__main__":
    main()
