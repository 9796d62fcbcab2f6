"""Scoring several engines on the same images, for a report."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timezone
from pathlib import Path

from ffnet_deploy.benchmark.record import BenchRun
from ffnet_deploy.core.contract import Contract
from ffnet_deploy.core.progress import Progress, no_progress
from ffnet_deploy.engines.engine import Engine
from ffnet_deploy.evaluation.datasets import Dataset
from ffnet_deploy.evaluation.evaluate import EvaluateOptions, Evaluation, evaluate
from ffnet_deploy.report.collect import Collector, GalleryOptions
from ffnet_deploy.report.data import DEFAULT_MAX_DROP, Contender, Gallery, ReportData
from ffnet_deploy.report.merge import check_one_set, environment, merged, scored_contender, timed_contenders


@dataclass
class Comparison:
    """Engines scored one after the other; the first is what the others are compared with.

    Attributes:
        gallery: how many pictures to keep, and how large.
        contenders: what was found so far.
    """

    gallery: GalleryOptions = field(default_factory=GalleryOptions)
    contenders: list[Contender] = field(default_factory=list)
    _contracts: list[Contract] = field(default_factory=list)
    _collector: Collector | None = None

    @property
    def agreement(self) -> float | None:
        """Pixels that the last contender labels as the first does, percent; None for the first itself."""
        last = self.contenders[-1].accuracy if self.contenders else None
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
            progress: told of the images done.
            notes: what else to know of its results.

        Raises:
            ArtifactError: it predicts other classes than the engines before, or its manifest is damaged.
        """
        check_one_set([*self._contracts, engine.contract])
        if self._collector is None:
            names = [sample.name for sample in dataset.limited(options.limit).samples]
            self._collector = Collector(names, self.gallery)
        found = evaluate(engine, dataset, options, progress, self._collector.next_contender())
        found = replace(found, notes=(*engine.notes, *notes, *found.notes))
        number = len(self.contenders)
        agreement = self._collector.agreement(number) if number else None
        self.contenders.append(scored_contender(engine.name, engine.contract, found, artifact, agreement))
        self._contracts.append(engine.contract)
        return found

    def report(
        self,
        title: str | None = None,
        run: BenchRun | None = None,
        artifacts: Sequence[Path] = (),
        max_drop: float = DEFAULT_MAX_DROP,
    ) -> ReportData:
        """The report of everything scored so far, at least one engine, and of `run` where there is one.

        Args:
            title: of the page; None names the network.
            run: times of the same networks, matched by file and runtime.
            artifacts: files of contenders that `run` alone knows, for their manifests.
            max_drop: largest fall of mIoU that the gate accepts, points.
        """
        timed = timed_contenders(run, artifacts) if run is not None else ()
        contenders = merged(self.contenders, timed)
        contract = self._contracts[0]
        names = [one.name for one in contenders[: len(self.contenders)]]
        return ReportData(
            title=title or contract.network,
            created=datetime.now(timezone.utc).isoformat(timespec="seconds"),
            contenders=contenders,
            classes=contract.classes,
            palette=contract.palette,
            gallery=self._collector.gallery(contract, names) if self._collector else Gallery(),
            max_drop=max_drop,
            run=run,
            environment=environment(run),
        )
