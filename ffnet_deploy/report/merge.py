"""From what was measured to contenders: scores, times and manifests of the same networks, put together."""

import os
import platform
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from ffnet_deploy.artifacts.manifest import manifest_path, read_manifest, tool_versions
from ffnet_deploy.benchmark.record import BenchRun, Measurement
from ffnet_deploy.core.contract import Contract
from ffnet_deploy.core.errors import ArtifactError
from ffnet_deploy.evaluation.evaluate import Evaluation
from ffnet_deploy.report.data import Accuracy, Contender
from ffnet_deploy.report.proof import asked_of

_RUNTIME = re.compile(r"[A-Za-z ]*")


def manifest_of(artifact: Path | None) -> Mapping[str, Any] | None:
    """The manifest beside `artifact`, or None where there is none.

    Raises:
        ArtifactError: there is one that is damaged or belongs to another file.
    """
    if artifact is None or not manifest_path(artifact).is_file():
        return None
    return read_manifest(artifact)


def scored_contender(
    engine: str, contract: Contract, evaluation: Evaluation, artifact: Path | None, agreement: float | None = None
) -> Contender:
    """What `evaluation` found of the network that `engine` (its name) ran.

    Args:
        engine: runtime and device, for people.
        contract: of the network.
        evaluation: its scores.
        artifact: its file; None for PyTorch.
        agreement: pixels with the same label as the first contender's, percent; None for the first.
    """
    manifest = manifest_of(artifact)
    contender = Contender(
        name=runtime(engine),
        engine=engine,
        network=contract.network,
        artifact=None if artifact is None else artifact.name,
        sha256=None if manifest is None else str(manifest["sha256"]),
        sources=dict(contract.sources),
        manifest=manifest,
        accuracy=Accuracy(
            scores=evaluation.scores,
            images=evaluation.images,
            seconds=evaluation.seconds,
            dataset=evaluation.dataset,
            split=evaluation.split,
            protocol={
                **asdict(evaluation.protocol),
                "ratios": list(evaluation.predict.ratios),
                "flip": evaluation.predict.flip,
            },
            agreement=agreement,
            notes=evaluation.notes,
        ),
    )
    asked = asked_of(contender)
    precision = asked.precision if asked else "fp32"
    name = f"{contender.name} {precision.upper()}" if artifact else contender.name
    return replace(contender, name=name, precision=precision)


def runtime(engine: str) -> str:
    """The runtime in an engine's name: ``"ONNX Runtime"`` of ``"ONNX Runtime 1.31 (CPU)"``."""
    match = _RUNTIME.match(engine)
    return (match[0].strip() if match else "") or engine


def timed_contenders(run: BenchRun, artifacts: Sequence[Path] = ()) -> tuple[Contender, ...]:
    """What a run of the benchmark found, in its order.

    Args:
        run: as measured.
        artifacts: files whose manifests to read; those of other files than the run's are left alone.

    Raises:
        ArtifactError: a manifest is damaged or belongs to another file.
    """
    manifests = [manifest for path in artifacts if (manifest := manifest_of(path)) is not None]
    by_hash = {str(manifest["sha256"]): manifest for manifest in manifests}
    return tuple(
        Contender(
            name=one.name,
            engine=one.engine,
            network=one.network,
            artifact=one.artifact,
            sha256=one.sha256,
            precision=one.precision,
            manifest=by_hash.get(one.sha256 or ""),
            measurements=tuple(entry for entry in run.measurements if entry.contender == one.name),
            notes=one.notes,
        )
        for one in run.contenders
    )


def merged(scored: Sequence[Contender], timed: Sequence[Contender]) -> tuple[Contender, ...]:
    """Contenders of both kinds as one list, those of the same file in the same runtime as one; names are unique.

    Scored ones come first, in their order, so that accuracy is compared with what `scored` begins with; ratios and
    checks go on naming what the benchmark compared with, by its name in the list.
    """
    left = list(timed)
    renamed: dict[str, str] = {}
    out: list[Contender] = []
    for one in _unique(scored, frozenset()):
        match = next((other for other in left if _same(one, other)), None)
        if match is not None:
            left.remove(match)
            renamed[match.name] = one.name
            notes = tuple(dict.fromkeys((*one.notes, *match.notes)))
            one = replace(one, measurements=match.measurements, precision=match.precision, notes=notes)
        out.append(one)
    for other, one in zip(left, _unique(left, frozenset(entry.name for entry in out)), strict=True):
        renamed[other.name] = one.name
        out.append(one)
    return tuple(replace(one, measurements=_renamed(one.measurements, renamed)) for one in out)


def _same(one: Contender, other: Contender) -> bool:
    if runtime(one.engine) != runtime(other.engine):
        return False
    if one.sha256 or other.sha256:
        return one.sha256 == other.sha256
    return one.artifact is None and other.artifact is None and one.network == other.network


def _unique(contenders: Sequence[Contender], taken: frozenset[str]) -> list[Contender]:
    """The contenders, with file or number behind names that are shared or `taken`."""
    out: list[Contender] = []
    names = set(taken)
    count = Counter(one.name for one in contenders)
    for one in contenders:
        name = f"{one.name}, {one.artifact}" if one.artifact and count[one.name] > 1 else one.name
        number = 2
        while name in names:
            name, number = f"{one.name} ({number})", number + 1
        names.add(name)
        out.append(replace(one, name=name))
    return out


def _renamed(measurements: tuple[Measurement, ...], names: Mapping[str, str]) -> tuple[Measurement, ...]:
    return tuple(
        replace(
            one,
            contender=names.get(one.contender, one.contender),
            ratio=one.ratio and replace(one.ratio, against=names.get(one.ratio.against, one.ratio.against)),
            check=one.check and replace(one.check, against=names.get(one.check.against, one.check.against)),
        )
        for one in measurements
    )


def environment(run: BenchRun | None = None) -> dict[str, dict[str, str]]:
    """Machine and versions of this process and, where there is one, of the run of the benchmark."""
    here = {
        "Machine": {
            "system": platform.platform(),
            "processor": platform.machine(),
            "logical cores": str(os.cpu_count()),
            "Python": platform.python_version(),
        },
        "Versions": tool_versions(),
    }
    if run is None:
        return here
    timed = {"measured": run.created, **run.environment}
    return {**here, "Benchmark's machine": timed, "Benchmark's versions": dict(run.versions)}


def check_one_set(contracts: Sequence[Contract]) -> None:
    """Raise `ArtifactError` unless all `contracts` predict the same classes."""
    for other in contracts[1:]:
        if other.classes != contracts[0].classes:
            raise ArtifactError(
                f"{other.network} predicts {len(other.classes)} classes of {other.dataset}, {contracts[0].network} "
                f"{len(contracts[0].classes)} of {contracts[0].dataset}: they cannot be compared.\n"
                "  to do    compare networks that were trained for the same classes"
            )
