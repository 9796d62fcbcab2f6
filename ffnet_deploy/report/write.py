"""Writing a report: the page, and beside it the same as Markdown and as JSON."""

import json
from collections.abc import Collection
from dataclasses import asdict
from pathlib import Path
from typing import Any

from ffnet_deploy.artifacts import Kind, is_own
from ffnet_deploy.benchmark.files import run_to_dict
from ffnet_deploy.core.errors import OptionError
from ffnet_deploy.core.files import write_bytes
from ffnet_deploy.report.data import Accuracy, CandidateResults, ReportData
from ffnet_deploy.report.gate import checks, verdict
from ffnet_deploy.report.markdown import markdown
from ffnet_deploy.report.markup import plain
from ffnet_deploy.report.page import page

FORMAT = 1
"""Version of the JSON."""

KIND = "ffnet-report"

_SUFFIXES = (".html", ".htm")


def report_files(path: Path, taken: Collection[Path | None] = ()) -> tuple[Path, Path, Path]:
    """The page, the Markdown and the JSON that `write_report` writes for `path`.

    Args:
        path: of the page.
        taken: other files of the command. Where the JSON's name is one of them, or a file that is no earlier report,
            it ends in ``.report.json``.

    Raises:
        OptionError: `path` does not end in ``.html``.
    """
    if path.suffix.lower() not in _SUFFIXES:
        raise OptionError(f"a report is an HTML file: give it a name that ends in .html, not {path.name!r}")
    values = path.with_suffix(".json")
    others = {other.resolve() for other in taken if other is not None}
    if values.resolve() in others or (values.exists() and not is_own(values, Kind.REPORT)):
        values = path.with_suffix(".report.json")
    return path, path.with_suffix(".md"), values


def write_report(path: Path, data: ReportData, taken: Collection[Path | None] = ()) -> tuple[Path, Path, Path]:
    """Write `data` as the page `path` (``.html``), and beside it as ``.md`` and ``.json``, each atomically.

    Args:
        path: of the page.
        data: what it shows.
        taken: other files of the command, which the JSON does not replace (see `report_files`).

    Returns:
        The three paths.

    Raises:
        OptionError: `path` does not end in ``.html``.
        StorageError: a file cannot be written.
    """
    html, text, values = report_files(path, taken)
    write_bytes(html, page(data).encode())
    write_bytes(text, markdown(data).encode())
    content = json.dumps(report_to_dict(data), indent=2, ensure_ascii=False)
    write_bytes(values, plain_lines(content).encode())
    return html, text, values


def plain_lines(text: str) -> str:
    """`text` as UTF-8 can hold it, its line breaks kept, with one at the end."""
    return "\n".join(plain(line) for line in text.split("\n")) + "\n"


def report_to_dict(data: ReportData) -> dict[str, Any]:
    """All values of the report, without pictures; keys of scores and runs as in their own files."""
    found = checks(data)
    return {
        "kind": KIND,
        "format": FORMAT,
        "title": data.title,
        "created": data.created,
        "gate": {
            "outcome": verdict(found).value,
            **data.limit.to_dict(),
            "checks": [
                {"candidate": one.candidate, "asked": one.asked, "found": one.found, "outcome": one.outcome.value}
                for one in found
            ],
        },
        "classes": list(data.classes),
        "candidates": [_candidate(one) for one in data.candidates],
        "training": None if data.training is None else asdict(data.training),
        "bench": None if data.run is None else run_to_dict(data.run),
        "pictures": [
            {"name": one.name, "right": list(one.right), "agreement": list(one.agreement)}
            for one in data.gallery.samples
        ],
        "environment": {heading: dict(facts) for heading, facts in data.environment.items()},
        "notes": list(data.notes),
    }


def _candidate(one: CandidateResults) -> dict[str, Any]:
    return {
        "name": one.name,
        "engine": one.engine,
        "network": one.network,
        "artifact": one.artifact,
        "sha256": one.sha256,
        "precision": one.precision,
        "sources": dict(one.sources),
        "accuracy": None if one.accuracy is None else _accuracy(one.accuracy),
        "notes": list(one.notes),
        "manifest": one.manifest,
    }


def _accuracy(one: Accuracy) -> dict[str, Any]:
    return {
        **(one.scores.to_dict() if one.scores else {}),
        "images": one.images,
        "seconds": round(one.seconds, 3),
        "agreement": one.agreement,
        "difference": None if one.difference is None else one.difference.to_dict(),
        "notes": list(one.notes),
        "dataset": {"name": one.dataset, "split": one.split},
        "protocol": dict(one.protocol),
    }
