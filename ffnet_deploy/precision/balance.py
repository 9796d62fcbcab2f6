"""Fewer casts: nodes between FP32 neighbours compute in FP32 too where that moves fewer bytes."""

from collections.abc import Mapping

from ffnet_deploy.precision.view import LINEAR, QUANTIZERS, Node, View

_CAST_BYTES = 6
"""Read 4 and write 2, or the reverse, for each value cast."""
_WIDE_BYTES = 2
"""More for each value read or written by a node in FP32."""


def casts_of(view: View, name: str, wide: set[str]) -> set[bool]:
    """The casts that a tensor needs, as whether to FP32: at most one for each direction.

    Args:
        view: the graph.
        name: of a float tensor that is no constant.
        wide: names of the nodes that compute in FP32.
    """
    producer = view.producers.get(name)
    made_wide = producer is None or producer.name in wide  # inputs of the graph are float32
    wanted = {taker.name in wide for taker in view.consumers.get(name, [])}
    if name in view.outputs:
        wanted.add(True)
    return wanted - {made_wide}


def spared(view: View, wide: set[str], sizes: Mapping[str, int]) -> set[str]:
    """Nodes to compute in FP32 beyond `wide`: quantisers of FP32 neighbours, and what moves fewer bytes so.

    Args:
        view: the graph.
        wide: names of the nodes that must.
        sizes: number of values of each tensor.
    """
    chosen = set(wide)
    while joining := _quantizers(view, chosen) or _cheaper(view, chosen, sizes):
        chosen |= joining
    return chosen - wide


def _quantizers(view: View, wide: set[str]) -> set[str]:
    """Q/DQ nodes that follow their neighbours, since a cast between them and a convolution would part them."""
    found = set()
    for node in view.nodes.values():
        if node.op not in QUANTIZERS or node.name in wide:
            continue
        source = node.inputs[0][1]
        if node.op == "QuantizeLinear" and source not in view.initializers:
            producer = view.producers.get(source)
            follows = producer is None or producer.name in wide
        else:
            takers = view.takers(node.proto.output[0])
            follows = bool(takers) and all(taker in wide for taker in takers)
        if follows:
            found.add(node.name)
    return found


def _cheaper(view: View, wide: set[str], sizes: Mapping[str, int]) -> set[str]:
    """The first light node that moves fewer bytes in FP32, if there is one."""
    for node in view.nodes.values():
        heavy = node.op in LINEAR or node.op in QUANTIZERS
        if not heavy and node.name not in wide and _gain(view, node, wide, sizes) > 0:
            return {node.name}
    return set()


def _gain(view: View, node: Node, wide: set[str], sizes: Mapping[str, int]) -> int:
    """Bytes that are not moved when `node` joins `wide`."""
    names = dict.fromkeys((*(name for _, name in node.inputs), *node.outputs))
    around = [name for name in names if name not in view.initializers]
    joined = wide | {node.name}
    casts = sum((len(casts_of(view, name, wide)) - len(casts_of(view, name, joined))) * sizes[name] for name in around)
    return _CAST_BYTES * casts - _WIDE_BYTES * sum(sizes[name] for name in around)
