"""What a report says of sets of slices, and of published numbers that may not be compared."""

import re
from dataclasses import replace
from pathlib import Path

import pytest

from voxray.api import report
from voxray.evaluation import fid
from voxray.evaluation.fid import FidLine, read_fid
from voxray.evaluation.folder import ResultsFolder
from voxray.evaluation.published import published_tables, table_named
from voxray.evaluation.report.tables import alone
from voxray.evaluation.report.tables import fid as fid_table
from voxray.evaluation.results import Group

LINE = FidLine(Group("closed", "pa", "m"), 50, (10.0, 20.0, 36.0), "inception_v3_google")


def section(html: str, title: str) -> str:
    return html.partition(f". {title}</h2>")[2].partition("</section>")[0]


@pytest.fixture(scope="module")
def html(compared: Path, tmp_path_factory: pytest.TempPathFactory) -> str:
    return report([compared], tmp_path_factory.mktemp("report") / "report.html")[0].read_text(encoding="utf-8")


def test_every_published_table_that_stands_alone_says_why(html: str) -> None:
    apart = {table.id for table in published_tables() if table.apart}
    assert apart == {"psct-spine", "psct-pelvic", "difr3ct", "axon", "diff2ct-spine", "diff2ct-lumbar"}
    found = section(html, "Published numbers that may not be compared")
    assert found.count("<table") == len(apart)
    assert found.count("scans of the spine") == 3
    assert found.count("scans of the pelvis") == 1
    assert found.count("not known well enough") == 2
    assert "phantom" not in found


def test_a_table_that_stands_alone_has_the_published_rows_and_no_other() -> None:
    table = alone(table_named("diff2ct-spine"))
    assert [entry.text for entry in table.rows[2]] == ["DiffuX2CT", "21.53", "0.5924", "8.90"]
    assert all(row[0].quoted for row in table.rows)
    assert table.notes[0] == (
        "CTSpine1K. Scored: not known. These are scans of the spine, and voxray's models are of chests."
    )
    assert "2507.11152" in table.notes[1]


def test_every_published_table_beside_ours_says_that_it_is_no_ranking(html: str) -> None:
    found = section(html, "Beside the published numbers")
    assert found.count("no ranking") == found.count("<table") == 2  # the phantoms were scored by DVG's conventions


def test_only_metrics_that_were_computed_are_explained(html: str) -> None:
    explained = re.findall(r"<dt>(.*?)</dt>", html.partition("What the metrics are")[2])
    assert "3D PSNR" in explained
    assert "SSIM (DVG)" in explained
    assert "LPIPS (DVG)" not in explained


def test_fid_has_a_table_with_its_weights() -> None:
    table = fid_table([LINE])
    assert table.columns == (
        "model", "protocol", "views", "n", "axial ↓", "coronal ↓", "sagittal ↓", "mean ↓", "weights"
    )  # fmt: skip
    assert [entry.text for entry in table.rows[0]] == [
        "m", "closed", "pa", "50", "10.0", "20.0", "36.0", "22.0", "inception_v3_google"
    ]  # fmt: skip


def test_fid_of_a_folder_stands_in_the_report(compared: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    results = ResultsFolder.open(compared)
    group = next(iter(results.evaluation().by_group))
    asked = ResultsFolder(tmp_path, results.manifest.model_copy(update={"fid": LINE.weights}))
    monkeypatch.setattr(fid, "fid_lines", lambda folder: [replace(LINE, group=group)])
    fid.write_fid(asked)
    assert read_fid(tmp_path) == [replace(LINE, group=group)]
    monkeypatch.setattr("voxray.evaluation.report.build.read_fid", lambda folder: read_fid(tmp_path))
    page = report([compared], tmp_path / "r.html")[0].read_text(encoding="utf-8")
    cells = re.findall(r"<td>(.*?)</td>", section(page, "Sets of slices"))
    assert cells == [group.model, group.protocol, group.views, "50", "10.0", "20.0", "36.0", "22.0", LINE.weights]


def test_without_fid_there_is_no_such_section(html: str) -> None:
    assert "Sets of slices" not in html
