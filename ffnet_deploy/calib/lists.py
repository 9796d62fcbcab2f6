"""Lists of calibration images: a rule on file names that picks the same images of a data set everywhere."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path

from ffnet_deploy.core.errors import DataError
from ffnet_deploy.evaluation.datasets import Sample


@dataclass(frozen=True)
class Rule:
    """How many of the images whose file names fit a pattern: evenly spaced among them, sorted by name."""

    pattern: str
    count: int


@dataclass(frozen=True)
class ImageList:
    """Rules that name images of a data set.

    Attributes:
        path: where they were read.
        rules: in order.
    """

    path: Path
    rules: tuple[Rule, ...]

    @property
    def count(self) -> int:
        """Images that the rules ask for."""
        return sum(rule.count for rule in self.rules)

    def select(self, samples: Sequence[Sample]) -> list[Sample]:
        """The samples that the rules pick, each once; rules take turns, so that the first few are mixed too.

        Raises:
            DataError: no sample fits.
        """
        turns: list[Iterator[Sample]] = [iter(_evenly(samples, rule)) for rule in self.rules]
        chosen: dict[Sample, None] = {}
        while turns:
            turns = [turn for turn in turns if _take(turn, chosen)]
        if not chosen:
            raise DataError(
                f"none of {len(samples)} images fits the list {self.path} (first pattern: {self.rules[0].pattern}).\n"
                "  to do    name the list of this data set, and its training split"
            )
        return list(chosen)


def _take(turn: Iterator[Sample], chosen: dict[Sample, None]) -> bool:
    sample = next(turn, None)
    if sample is not None:
        chosen[sample] = None
    return sample is not None


def _evenly(samples: Sequence[Sample], rule: Rule) -> list[Sample]:
    fitting = sorted((s for s in samples if fnmatchcase(s.image.name, rule.pattern)), key=lambda s: s.image.name)
    total = len(fitting)
    return [fitting[index * total // rule.count] for index in range(rule.count)] if rule.count < total else fitting


def read_image_list(path: Path) -> ImageList:
    """The list in the text file `path`: one `PATTERN [COUNT]` a line, ``#`` before comments.

    Raises:
        DataError: the file is missing or empty, or a line is neither.
    """
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"cannot read the image list {path}: {error}.\n  to do    check --calib-list") from error
    rules = [_rule(line, f"{path}, line {number}") for number, line in enumerate(lines, 1) if _is_rule(line)]
    if not rules:
        raise DataError(f"the image list {path} names no image; expected one `PATTERN [COUNT]` a line")
    return ImageList(path, tuple(rules))


def _is_rule(line: str) -> bool:
    return bool(line.strip()) and not line.lstrip().startswith("#")


def _rule(line: str, where: str) -> Rule:
    pattern, *rest = line.split()
    if len(rest) > 1 or (rest and not (rest[0].isdecimal() and int(rest[0]) > 0)):
        raise DataError(f"{where}: expected `PATTERN [COUNT]`, found {line.strip()!r}")
    return Rule(pattern, int(rest[0]) if rest else 1)
