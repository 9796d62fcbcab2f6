"""From engines, scores, times and manifests to the data of a report."""

import os
import platform
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from ffnet_deploy.artifacts.manifest import manifest_path, read_manifest, tool_versions
from ffnet_deploy.benchmark.candidates import short_names
from ffnet_deploy.benchmark.record import BenchRun, TimingResult
from ffnet_deploy.core.contract import Contract, weight_notes
from ffnet_deploy.core.errors import ArtifactError
from ffnet_deploy.core.progress import Progress, no_progress
from ffnet_deploy.engines.engine import Engine
from ffnet_deploy.evaluation.datasets import Dataset
from ffnet_deploy.evaluation.evaluate import EvaluateOptions, Evaluation, evaluate
from ffnet_deploy.evaluation.image_scores import ImageScore
from ffnet_deploy.evaluation.intervals import PairedDifference, paired_difference
from ffnet_deploy.evaluation.scores import MiouLimit
from ffnet_deploy.report.data import DEFAULT_LIMIT, Accuracy, CandidateResults, Gallery, ReportData
from ffnet_deploy.report.gallery import GalleryOptions, PredictionCollector
from ffnet_deploy.report.gate import requested_precision
from ffnet_deploy.report.training import LearningCurve

_RUNTIME = re.compile(r"[A-Za-z ]*")


def manifest_of(artifact: Path | None) -> Mapping[str, Any] | None:
    """The manifest beside `artifact`, or None where there is none.

    Raises:
        ArtifactError: there is one that is damaged or belongs to another file.
    """
    if artifact is None or not manifest_path(artifact).is_file():
        return None
    return read_manifest(artifact)


def scored_candidate(
    engine: str,
    contract: Contract,
    evaluation: Evaluation,
    artifact: Path | None,
    agreement: float | None = None,
    difference: PairedDifference | None = None,
) -> CandidateResults:
    """What `evaluation` found of the network that `engine` (its name) ran.

    Args:
        engine: runtime and device, for people.
        contract: of the network.
        evaluation: its scores.
        artifact: its file; None for PyTorch.
        agreement: pixels with the same label as the first candidate's, percent; None for the first.
        difference: of its scores to the first candidate's; None for the first, and where images are not labelled.
    """
    manifest = manifest_of(artifact)
    candidate = CandidateResults(
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
            difference=difference,
            notes=evaluation.notes,
        ),
    )
    asked = requested_precision(candidate)
    precision = asked.precision if asked else "fp32"
    name = f"{candidate.name} {precision.upper()}" if artifact else candidate.name
    return replace(candidate, name=name, precision=precision)


def runtime(engine: str) -> str:
    """The runtime in an engine's name: ``"ONNX Runtime"`` of ``"ONNX Runtime 1.31 (CPU)"``."""
    match = _RUNTIME.match(engine)
    return (match[0].strip() if match else "") or engine


def timed_candidates(run: BenchRun, artifacts: Sequence[Path] = ()) -> tuple[CandidateResults, ...]:
    """What a run of the benchmark found, in its order.

    Args:
        run: as measured.
        artifacts: files whose manifests to read; those of other files than the run's are left alone.

    Raises:
        ArtifactError: a manifest is damaged or belongs to another file.
    """
    manifests = [manifest for path in artifacts if (manifest := manifest_of(path)) is not None]
    by_hash = {str(manifest["sha256"]): manifest for manifest in manifests}
    candidates = []
    for one in run.candidates:
        manifest = by_hash.get(one.sha256 or "")
        described = (manifest or {}).get("contract")
        weights = weight_notes(described.get("sources") or {}) if isinstance(described, dict) else ()
        candidates.append(
            CandidateResults(
                name=one.name,
                engine=one.engine,
                network=one.network,
                artifact=one.artifact,
                sha256=one.sha256,
                precision=one.precision,
                manifest=manifest,
                measurements=tuple(entry for entry in run.measurements if entry.candidate == one.name),
                notes=tuple(dict.fromkeys((*weights, *one.notes))),
            )
        )
    return tuple(candidates)


def merged(scored: Sequence[CandidateResults], timed: Sequence[CandidateResults]) -> tuple[CandidateResults, ...]:
    """Candidates of both kinds as one list, those of the same file in the same runtime as one; names are unique.

    Scored ones come first, in their order, so that accuracy is compared with what `scored` begins with; ratios and
    checks go on naming what the benchmark compared with, by its name in the list.
    """
    left = list(timed)
    renamed: dict[str, str] = {}
    out: list[CandidateResults] = []
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


def _same(one: CandidateResults, other: CandidateResults) -> bool:
    if runtime(one.engine) != runtime(other.engine):
        return False
    if one.sha256 or other.sha256:
        return one.sha256 == other.sha256
    return one.artifact is None and other.artifact is None and one.network == other.network


def _unique(candidates: Sequence[CandidateResults], taken: frozenset[str]) -> list[CandidateResults]:
    """The candidates, with file or number behind names that are shared or `taken`."""
    out: list[CandidateResults] = []
    names = set(taken)
    count = Counter(one.name for one in candidates)
    for one in candidates:
        name = f"{one.name}, {one.artifact}" if one.artifact and count[one.name] > 1 else one.name
        number = 2
        while name in names:
            name, number = f"{one.name} ({number})", number + 1
        names.add(name)
        out.append(replace(one, name=name))
    return out


def _renamed(measurements: tuple[TimingResult, ...], names: Mapping[str, str]) -> tuple[TimingResult, ...]:
    return tuple(
        replace(
            one,
            candidate=names.get(one.candidate, one.candidate),
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


@dataclass
class ReportBuilder:
    """Engines scored one after the other; the first is what the others are compared with.

    Attributes:
        gallery: Number and size of the pictures to keep.
        compares: Whether further engines follow the first; what it predicts is kept for them.
        candidates: Results so far.
        training: Learning curve of the first engine's network, where it is known.
    """

    gallery: GalleryOptions = field(default_factory=GalleryOptions)
    compares: bool = True
    candidates: list[CandidateResults] = field(default_factory=list)
    training: LearningCurve | None = None
    _paths: list[Path | None] = field(default_factory=list)
    _contracts: list[Contract] = field(default_factory=list)
    _collector: PredictionCollector | None = None
    _first_scores: tuple[ImageScore, ...] = ()

    @property
    def agreement(self) -> float | None:
        """Pixels that the last candidate labels as the first does, percent; None for the first itself."""
        last = self.candidates[-1].accuracy if self.candidates else None
        return None if last is None else last.agreement

    def score(
        self,
        engine: Engine,
        dataset: Dataset,
        options: EvaluateOptions,
        artifact: Path | None,
        progress: Progress = no_progress,
        notes: tuple[str, ...] = (),
    ) -> Evaluation:
        """Score `engine` as `evaluate` does, and keep what a report needs; the same `dataset` for all engines.

        Args:
            engine: runs the network.
            dataset: images, labelled or not.
            options: how to score.
            artifact: the network's file; None for PyTorch.
            progress: called with the images done and in all.
            notes: what else to know of its results.

        Raises:
            ArtifactError: it predicts other classes than the engines before, or its manifest is damaged.
        """
        check_one_set([*self._contracts, engine.contract])
        if self._collector is None:
            names = [sample.name for sample in dataset.limited(options.limit).samples]
            self._collector = PredictionCollector(names, self.gallery, self.compares)
        found = evaluate(engine, dataset, options, progress, self._collector.next_candidate())
        found = replace(found, notes=tuple(dict.fromkeys((*engine.notes, *notes, *found.notes))))
        number = len(self.candidates)
        agreement = difference = None
        if number:
            agreement = self._collector.agreement(number)
            if found.scores is not None:
                difference = paired_difference(self._first_scores, found.per_image, engine.contract.classes)
        else:
            self._first_scores = found.per_image
        self.candidates.append(scored_candidate(engine.name, engine.contract, found, artifact, agreement, difference))
        self._contracts.append(engine.contract)
        self._paths.append(artifact)
        return found

    def report(
        self,
        title: str | None = None,
        run: BenchRun | None = None,
        artifacts: Sequence[Path] = (),
        limit: MiouLimit = DEFAULT_LIMIT,
    ) -> ReportData:
        """The report of everything scored so far, at least one engine, and of `run` where there is one.

        Args:
            title: of the page; None names the network.
            run: times of the same networks, matched by file and runtime.
            artifacts: files of candidates that `run` alone knows, for their manifests.
            limit: how far mIoU may fall for the gate to accept it.
        """
        timed = timed_candidates(run, artifacts) if run is not None else ()
        # files of the same name are distinguished by their folders
        short = short_names([path for path in self._paths if path is not None])
        scored = [
            replace(one, artifact=short[path]) if path is not None else one
            for one, path in zip(self.candidates, self._paths, strict=True)
        ]
        candidates = merged(scored, timed)
        contract = self._contracts[0]
        names = [one.name for one in candidates[: len(self.candidates)]]
        return ReportData(
            title=title or contract.network,
            created=datetime.now(timezone.utc).isoformat(timespec="seconds"),
            candidates=candidates,
            classes=contract.classes,
            palette=contract.palette,
            gallery=self._collector.gallery(contract, names) if self._collector else Gallery(),
            limit=limit,
            run=run,
            environment=environment(run),
            training=self.training,
        )
