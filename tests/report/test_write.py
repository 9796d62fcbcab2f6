import json
import re
from dataclasses import replace
from pathlib import Path

import pytest

from ffnet_deploy.benchmark.files import run_from_dict
from ffnet_deploy.core.errors import OptionError, StorageError
from ffnet_deploy.report import ReportData, write_report
from ffnet_deploy.report.gate import checks
from ffnet_deploy.report.markdown import markdown
from ffnet_deploy.report.page import page
from ffnet_deploy.report.write import report_files
from tests.report.examples import NAMES, example
from tests.report.reading import parse, table_rows


@pytest.fixture(scope="module")
def data() -> ReportData:
    return example()


def test_page_markdown_and_json_lie_side_by_side(data: ReportData, tmp_path: Path) -> None:
    files = write_report(tmp_path / "out" / "report.html", data)
    assert [file.name for file in files] == ["report.html", "report.md", "report.json"]
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == sorted(file.name for file in files)
    assert files[0].read_text(encoding="utf-8") == page(data)
    assert files[1].read_text(encoding="utf-8") == markdown(data)


def test_json_holds_every_number(data: ReportData, tmp_path: Path) -> None:
    written = json.loads(write_report(tmp_path / "report.html", data)[2].read_text())
    assert (written["kind"], written["format"]) == ("ffnet-report", 1)
    assert written["gate"]["outcome"] == "fails" and len(written["gate"]["checks"]) == len(checks(data))
    for entry, one in zip(written["candidates"], data.candidates, strict=True):
        assert (entry["name"], entry["sha256"]) == (one.name, one.sha256)
        assert entry["accuracy"]["mIoU"] == one.scores.mean_iou
        assert entry["accuracy"]["agreement"] == one.accuracy.agreement
        assert entry["accuracy"]["per_class"]["sky"]["IoU"] == one.scores.per_class["sky"].iou
    assert run_from_dict(written["bench"]) == data.run
    assert [entry["agreement"] for entry in written["pictures"]] == [list(s.agreement) for s in data.gallery.samples]


def test_markdown_has_the_tables_of_the_page(data: ReportData) -> None:
    text = markdown(data).replace("\\", "")
    document = parse(page(data))
    headings = [node.text for node in document.all("h2")]
    assert re.findall(r"^## (.*)$", text, re.MULTILINE) == headings
    for node in document.all("table"):
        assert f"**{node.one('caption').text}**" in text
        for row in table_rows(node):
            cells = [cell for cell in row if cell]
            name, *values = (cell.removeprefix("\u2713 ").removeprefix("\u2715 ").removeprefix("? ") for cell in cells)
            line = [entry for entry in text.splitlines() if entry.startswith(f"| {name} |")]
            assert any(all(f" {value} |" in entry for value in values) for entry in line), (name, values)
    assert "data:image" not in text
    assert "Right" not in text and f"right, {NAMES[0]}" in text


def test_markdown_takes_nothing_from_outside_for_its_own(data: ReportData) -> None:
    text = markdown(replace(data, title="# a | b\n<script> `x` *y* [z](u)"))
    assert text.splitlines()[0] == "# \\# a \\| b \\<script\\> \\`x\\` \\*y\\* \\[z\\](u)"
    widths = {line.count("|") - line.count("\\|") for line in text.splitlines() if line.startswith("| scene")}
    assert len(widths) <= 2


def test_names_that_utf_8_cannot_hold_do_not_stop_a_report(data: ReportData, tmp_path: Path) -> None:
    odd = replace(data, title="odd \udcff name", gallery=replace(data.gallery, choice="\udcff"))
    for file in write_report(tmp_path / "report.html", odd):
        assert "\ufffd" in file.read_text(encoding="utf-8")


def test_only_html_files_are_reports_and_other_results_are_not_replaced(tmp_path: Path) -> None:
    with pytest.raises(OptionError, match=r"ends in \.html, not 'report.pdf'"):
        report_files(tmp_path / "report.pdf")
    taken = (None, tmp_path / "sub" / ".." / "scores.json")
    assert report_files(tmp_path / "scores.html", taken)[2].name == "scores.report.json"
    assert report_files(tmp_path / "report.html", taken)[2].name == "report.json"
    (tmp_path / "report.json").write_text('{"mIoU": 1}')
    assert report_files(tmp_path / "report.html")[2].name == "report.report.json"


def test_a_disk_that_fills_up_leaves_no_half_a_page(
    data: ReportData, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import errno
    import os

    def full(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(StorageError, match="no room left"):
        write_report(tmp_path / "report.html", data)
    assert list(tmp_path.iterdir()) == []
