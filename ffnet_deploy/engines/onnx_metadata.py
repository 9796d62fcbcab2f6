"""Reading an ONNX file's description without the onnx package: its metadata, and the names of its nodes.

The file is a protobuf message; of its fields (onnx.proto: ModelProto, GraphProto, NodeProto) only a few are looked at
and the weights are skipped, so that a file of gigabytes is read in no time.
"""

import mmap
from collections.abc import Iterator
from pathlib import Path, PurePath

from ffnet_deploy.artifacts.manifest import check_further_file
from ffnet_deploy.core.contract import METADATA_KEY, Contract
from ffnet_deploy.core.errors import ArtifactError
from ffnet_deploy.core.precision import PRECISION_KEY, PrecisionRecord
from ffnet_deploy.engines.onnx_file import check_file, read_contract, read_precision

_GRAPH, _OPSET_IMPORT, _METADATA = 7, 8, 14  # fields of ModelProto
_DOMAIN, _OPSET_VERSION = 1, 2  # fields of OperatorSetIdProto
_NODE, _INPUT, _OUTPUT = 1, 11, 12  # fields of GraphProto
_NODE_NAME, _NODE_TYPE, _NODE_ATTRIBUTE = 3, 4, 5  # fields of NodeProto
_INTEGER = 3  # field of AttributeProto
_TENSOR_NAME, _TYPE = 1, 2  # fields of ValueInfoProto
_TENSOR_TYPE, _ELEMENT, _SHAPE = 1, 1, 2  # field of TypeProto, and fields of TypeProto.Tensor
_DIMENSION, _DIMENSION_VALUE = 1, 1  # field of TensorShapeProto, and of its dimensions
_KEY, _VALUE = 1, 2  # fields of StringStringEntryProto
_TENSOR, _EXTERNAL_DATA = "tensor", 13  # the message TensorProto, and its field
_MESSAGES: dict[str, dict[int, str]] = {
    "model": {_GRAPH: "graph", 25: "function"},
    "graph": {_NODE: "node", 5: _TENSOR, 15: "sparse"},
    "function": {7: "node"},
    "node": {_NODE_ATTRIBUTE: "attribute"},
    "attribute": {5: _TENSOR, 6: "graph", 10: _TENSOR, 11: "graph", 22: "sparse", 23: "sparse"},
    "sparse": {1: _TENSOR, 2: _TENSOR},
}
"""Fields of each message that lead to tensors, and the message that each holds."""
_VARINT, _EIGHT_BYTES, _BYTES, _FOUR_BYTES = 0, 1, 2, 5  # how a field is written

_UINT16, _INT32 = 4, 6  # of TensorProto.DataType

_REMEDY = "to do    export it again with ffnet-export"

Span = tuple[int, int]
"""Where a field's bytes begin and end."""


def read_description(path: Path) -> tuple[Contract, PrecisionRecord]:
    """What the graph in `path` takes and gives, and the precision it asks for.

    The files that hold its weights are looked at too (see `external_files`): what reads a graph begins here.

    Raises:
        ArtifactError: the file is missing, no ONNX graph, or was not written by ffnet-export; or its weights lie in
            what is no plain file.
    """
    external_files(path)
    metadata = read_metadata(path)
    return read_contract(metadata.get(METADATA_KEY), path), read_precision(metadata.get(PRECISION_KEY), path)


def read_metadata(path: Path) -> dict[str, str]:
    """The metadata of the ONNX file `path`.

    Raises:
        ArtifactError: the file is missing, empty, or no ONNX graph.
    """
    content = _open(path)
    try:
        fields = list(_fields(content, (0, len(content))))
        if not any(number == _GRAPH for number, _ in fields):
            raise ValueError("it holds no graph")
        entries = [dict(_fields(content, span)) for number, span in fields if number == _METADATA]
        return {_text(content, entry[_KEY]): _text(content, entry.get(_VALUE, (0, 0))) for entry in entries}
    except (ValueError, KeyError, IndexError) as error:
        raise ArtifactError(f"{path} is no ONNX graph, or it is damaged ({error}).\n  {_REMEDY}") from error


def external_files(path: Path) -> tuple[str, ...]:
    """Names of the files beside `path` that hold tensors of its graph, wherever in the graph these are.

    Raises:
        ArtifactError: the file is no ONNX graph, or names a link, pipe or device, or a place out of its folder.
    """
    content = _open(path)
    names: dict[str, None] = {}
    try:
        waiting: list[tuple[str, Span]] = [("model", (0, len(content)))]
        while waiting:
            message, at = waiting.pop()
            for number, span in _fields(content, at):
                if message == _TENSOR and number == _EXTERNAL_DATA:
                    entry = dict(_fields(content, span))
                    if _KEY in entry and _text(content, entry[_KEY]) == "location":
                        names[_text(content, entry.get(_VALUE, (0, 0)))] = None
                elif message != _TENSOR and number in _MESSAGES[message]:
                    waiting.append((_MESSAGES[message][number], span))
    except (ValueError, IndexError) as error:
        raise ArtifactError(f"{path} is no ONNX graph, or it is damaged ({error}).\n  {_REMEDY}") from error
    for name in names:
        if name != PurePath(name).name or name in ("", "..") or "\0" in name:
            raise ArtifactError(f"{path} keeps weights in {name!r}, which is no file in its folder.\n  {_REMEDY}")
        check_further_file(path.with_name(name))
    return tuple(names)


def node_at(path: Path, index: int) -> str:
    """Name and operator of the node number `index` of the graph in `path`, as ``"name (operator)"``."""
    content = _open(path)
    graph = next(span for number, span in _fields(content, (0, len(content))) if number == _GRAPH)
    nodes = [span for number, span in _fields(content, graph) if number == _NODE]
    if not 0 <= index < len(nodes):
        return "the graph"
    fields = dict(_fields(content, nodes[index]))
    name, kind = (_text(content, fields.get(field, (0, 0))) for field in (_NODE_NAME, _NODE_TYPE))
    return f"{name or f'node {index}'} ({kind})"


def operators(path: Path) -> tuple[int, frozenset[str]]:
    """Version of the default operator set of the graph in `path`, and the operators of its nodes.

    Raises:
        ArtifactError: the file is no ONNX graph.
    """
    content = _open(path)
    try:
        model = list(_fields(content, (0, len(content))))
        imports = [dict(_fields(content, span)) for number, span in model if number == _OPSET_IMPORT]
        default = next(one for one in imports if not _text(content, one.get(_DOMAIN, (0, 0))))
        graph = next(span for number, span in model if number == _GRAPH)
        nodes = [dict(_fields(content, span)) for number, span in _fields(content, graph) if number == _NODE]
        kinds = frozenset(_text(content, node[_NODE_TYPE]) for node in nodes)
        return _varint(content, default[_OPSET_VERSION][0])[0], kinds
    except (ValueError, KeyError, IndexError, StopIteration) as error:
        raise ArtifactError(f"{path} is no ONNX graph, or it is damaged ({error}).\n  {_REMEDY}") from error


def tensor_shape(path: Path, name: str) -> tuple[int, ...]:
    """Shape of the input or output `name` of the graph in `path`; -1 where a dimension is free.

    Raises:
        ArtifactError: the file is no ONNX graph, or has no such tensor.
    """
    content = _open(path)
    try:
        graph = next(span for number, span in _fields(content, (0, len(content))) if number == _GRAPH)
        for number, span in _fields(content, graph):
            value = dict(_fields(content, span)) if number in (_INPUT, _OUTPUT) else {}
            if value and _text(content, value[_TENSOR_NAME]) == name:
                shape = _inner(content, _inner(content, _inner(content, span, _TYPE), _TENSOR_TYPE), _SHAPE)
                return tuple(_dimension(content, at) for field, at in _fields(content, shape) if field == _DIMENSION)
    except KeyError as error:
        raise ArtifactError(f"{path} does not say which shape {name!r} has.\n  {_REMEDY}") from error
    except (ValueError, IndexError, StopIteration) as error:
        raise ArtifactError(f"{path} is no ONNX graph, or it is damaged ({error}).\n  {_REMEDY}") from error
    raise ArtifactError(f"{path} has no input or output {name!r}.\n  {_REMEDY}")


def with_int32_labels(path: Path) -> bytes | None:
    """The graph in `path` with int32 in place of its uint16 output, for TensorRT, which has no uint16.

    Both types are numbers of one byte, in the output's description and in the Cast that makes it. None where the graph
    has no uint16 output.

    Raises:
        ArtifactError: the file is no ONNX graph.
    """
    content = _open(path)
    places: list[int] = []
    try:
        graph = next(span for number, span in _fields(content, (0, len(content))) if number == _GRAPH)
        fields = list(_fields(content, graph))
        for output in (span for number, span in fields if number == _OUTPUT):
            kind = dict(_fields(content, _inner(content, _inner(content, output, _TYPE), _TENSOR_TYPE)))[_ELEMENT]
            if content[kind[0]] == _UINT16:
                places.append(kind[0])
        for node in (span for number, span in fields if places and number == _NODE):
            entries = list(_fields(content, node))
            if any(number == _NODE_TYPE and _text(content, span) == "Cast" for number, span in entries):
                attributes = (dict(_fields(content, span)) for number, span in entries if number == _NODE_ATTRIBUTE)
                values = [attribute[_INTEGER] for attribute in attributes if _INTEGER in attribute]
                places += [value[0] for value in values if content[value[0]] == _UINT16]
    except (ValueError, KeyError, IndexError, StopIteration) as error:
        raise ArtifactError(f"{path} is no ONNX graph, or it is damaged ({error}).\n  {_REMEDY}") from error
    if not places:
        return None
    patched = bytearray(content)
    for place in places:
        patched[place] = _INT32
    return bytes(patched)


def _inner(content: mmap.mmap, span: Span, field: int) -> Span:
    """Place of the message in `field` of the message at `span`."""
    return dict(_fields(content, span))[field]


def _dimension(content: mmap.mmap, span: Span) -> int:
    fields = dict(_fields(content, span))
    return _varint(content, fields[_DIMENSION_VALUE][0])[0] if _DIMENSION_VALUE in fields else -1


def _open(path: Path) -> mmap.mmap:
    check_file(path)
    try:
        with path.open("rb") as file:
            return mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    except OSError as error:
        raise ArtifactError(f"cannot read {path}: {error.strerror or error}.\n  to do    check the file") from error


def _fields(content: mmap.mmap, span: Span) -> Iterator[tuple[int, Span]]:
    """Number and place of each field of the message that lies at `span`."""
    at, end = span
    while at < end:
        tag, at = _varint(content, at)
        size, at = _size(content, at, tag & 7)
        if at + size > end:
            raise ValueError("it ends too early")
        yield tag >> 3, (at, at + size)
        at += size


def _size(content: mmap.mmap, at: int, kind: int) -> tuple[int, int]:
    """Bytes of a field's value written as `kind`, and where it begins."""
    if kind == _VARINT:
        return _varint(content, at)[1] - at, at
    if kind == _BYTES:
        return _varint(content, at)
    if kind in (_EIGHT_BYTES, _FOUR_BYTES):
        return (8 if kind == _EIGHT_BYTES else 4), at
    raise ValueError("it is no protobuf message")


def _varint(content: mmap.mmap, at: int) -> tuple[int, int]:
    """A number written in groups of seven bits, lowest first, and where it ends."""
    value = 0
    for shift in range(0, 70, 7):
        byte = content[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, at
    raise ValueError("it is no protobuf message")


def _text(content: mmap.mmap, span: Span) -> str:
    return content[span[0] : span[1]].decode("utf-8")
