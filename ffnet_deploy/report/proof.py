"""What a manifest says of its artefact's precision: what was asked for, and what was found in it."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from ffnet_deploy.report.data import Contender

_DEEPEST = 4
_SOURCES = {"by_precision": "the built engine's layers, as its inspector lists them"}
_OTHERWISE = "the types of the network as parsed"


@dataclass(frozen=True)
class Asked:
    """What the graph's types and Q/DQ nodes ask for.

    Attributes:
        precision: for instance ``"int8"``.
        base: type of what is not quantised.
        quantized: number of quantised convolutions.
        float32: number of nodes kept in FP32.
    """

    precision: str
    base: str
    quantized: int
    float32: int


@dataclass(frozen=True)
class Proof:
    """What was found.

    Attributes:
        source: what it rests on, in words.
        counts: numbers of layers by type, by what was counted.
        numbers: other numbers, by name.
        violations: what is not as asked for; empty when the proof holds.
    """

    source: str
    counts: Mapping[str, Mapping[str, int]]
    numbers: Mapping[str, int]
    violations: tuple[str, ...]


def asked_of(contender: Contender) -> Asked | None:
    """What the contender's manifest says was asked for; None where it does not."""
    for section in _sections((contender.manifest or {}).get("precision")):
        if "precision" in section and "base" in section:
            return Asked(
                str(section["precision"]),
                str(section["base"]),
                len(section.get("quantized") or ()),
                len(section.get("float32") or ()),
            )
    return None


def proofs_of(contender: Contender) -> tuple[Proof, ...]:
    """All proofs in the contender's manifest, wherever in its sections ``proof`` and ``precision`` they stand."""
    manifest = contender.manifest or {}
    sections = (*_sections(manifest.get("proof")), *_sections(manifest.get("precision")))
    return tuple(_proof(section) for section in sections if isinstance(section.get("violations"), list | tuple))


def _sections(value: Any, depth: int = 0) -> Iterator[Mapping[str, Any]]:
    if not isinstance(value, Mapping) or depth > _DEEPEST:
        return
    yield value
    for part in value.values():
        yield from _sections(part, depth + 1)


def _proof(section: Mapping[str, Any]) -> Proof:
    counts = {
        name.replace("_", " "): {str(kind): count for kind, count in part.items() if isinstance(count, int)}
        for name, part in section.items()
        if isinstance(part, Mapping)
    }
    numbers = {name.replace("_", " "): value for name, value in section.items() if isinstance(value, int)}
    source = next((words for name, words in _SOURCES.items() if name in section), _OTHERWISE)
    return Proof(source, counts, numbers, tuple(str(one) for one in section["violations"]))
