"""Channels that must keep one scale: those that sums, concatenations and resizes tie together.

Dividing all of a group's producers by a factor per channel and multiplying all of its readers with it changes nothing.
"""

from dataclasses import dataclass, field

from onnx import NodeProto

from ffnet_deploy.precision.graph_index import Conv, GraphIndex, Use, attribute

_HOMOGENEOUS = frozenset({"Relu", "LeakyRelu", "Resize", "MaxPool", "AveragePool", "GlobalAveragePool", "Identity"})
"""Operators f with f(s x) = s f(x) for a positive factor s per channel, in their first input."""


@dataclass(frozen=True)
class Piece:
    """A run of a tensor's channels: all channels of one group.

    Attributes:
        group: its number.
        start: first channel.
        channels: how many.
    """

    group: int
    start: int
    channels: int

    @property
    def slice(self) -> slice:
        """Of the tensor's channels."""
        return slice(self.start, self.start + self.channels)


@dataclass
class Group:
    """Tensors that share one factor per channel.

    Attributes:
        channels: of each.
        producers: convolutions whose output channels are the group's.
        readers: convolutions with the first of their input channels that is the group's.
        sinks: inputs of operators that do not pass a factor on.
        fixed: whether a tensor is an output of the graph.
    """

    channels: int
    producers: list[Conv] = field(default_factory=list)
    readers: list[tuple[Conv, int]] = field(default_factory=list)
    sinks: list[Use] = field(default_factory=list)
    fixed: bool = False

    def absorb(self, other: "Group") -> None:
        """Take over everything of `other`."""
        self.producers += other.producers
        self.readers += other.readers
        self.sinks += other.sinks
        self.fixed = self.fixed or other.fixed


class ChannelGroups:
    """The groups of a graph: every convolution's output begins one, and operators unite or pass them on."""

    def __init__(self, graph: GraphIndex) -> None:
        self._groups: list[Group] = []
        self._parents: list[int] = []
        self._layouts: dict[str, tuple[Piece, ...]] = {}
        convs = {conv.name: conv for conv in graph.convs}
        for node in graph.nodes:
            self._visit(node, convs.get(node.name))
        for name in graph.outputs:
            for piece in self._layouts.get(name, ()):
                self._groups[self._root(piece.group)].fixed = True

    def layout(self, tensor: str) -> tuple[Piece, ...]:
        """The channels of `tensor`, first to last; empty where they are not made of groups."""
        pieces = self._layouts.get(tensor, ())
        return tuple(Piece(self._root(piece.group), piece.start, piece.channels) for piece in pieces)

    def all(self) -> dict[int, Group]:
        """Every group by its number."""
        return {index: self._groups[index] for index, parent in enumerate(self._parents) if parent == index}

    def _root(self, index: int) -> int:
        while self._parents[index] != index:
            index = self._parents[index]
        return index

    def _visit(self, node: NodeProto, conv: Conv | None) -> None:
        layouts, result = self._layouts, node.output[0]
        if conv is not None:
            for piece in self.layout(conv.input):
                self._groups[piece.group].readers.append((conv, piece.start))
            layouts[result] = self._new(conv)
        elif self._passes(node) or (node.op_type == "Add" and self._unites(node)):
            layouts[result] = layouts[node.input[0]]
        elif node.op_type == "Concat" and self._concatenates(node):
            layouts[result] = self._joined(node)
        else:
            self._end(node)

    def _new(self, conv: Conv) -> tuple[Piece, ...]:
        self._groups.append(Group(conv.shape[0], producers=[conv]))
        self._parents.append(len(self._parents))
        return (Piece(len(self._groups) - 1, 0, conv.shape[0]),)

    def _passes(self, node: NodeProto) -> bool:
        return node.op_type in _HOMOGENEOUS and node.input[0] in self._layouts

    def _end(self, node: NodeProto) -> None:
        for position, name in enumerate(node.input):
            for piece in self.layout(name):
                self._groups[piece.group].sinks.append(Use(node, position))

    def _unites(self, node: NodeProto) -> bool:
        first, second = (self.layout(name) for name in node.input)
        if not first or [piece.slice for piece in first] != [piece.slice for piece in second]:
            return False
        for one, other in zip(first, second, strict=True):
            kept, gone = self._root(one.group), self._root(other.group)
            if kept != gone:
                self._groups[kept].absorb(self._groups[gone])
                self._parents[gone] = kept
        return True

    def _concatenates(self, node: NodeProto) -> bool:
        return attribute(node, "axis", 0) == 1 and all(name in self._layouts for name in node.input)

    def _joined(self, node: NodeProto) -> tuple[Piece, ...]:
        pieces: list[Piece] = []
        for name in node.input:
            for piece in self.layout(name):
                start = pieces[-1].start + pieces[-1].channels if pieces else 0
                pieces.append(Piece(piece.group, start, piece.channels))
        return tuple(pieces)
