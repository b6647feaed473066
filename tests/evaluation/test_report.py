"""The report: self-contained, safe, and saying what may not be compared."""

import base64
import csv
import re
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
from comparing import OPTIONS, QUICK

from voxray.api import compare, report
from voxray.errors import InputError
from voxray.evaluation.folder import ModelEntry, ResultsFolder
from voxray.evaluation.nodule_folder import NoduleManifest
from voxray.evaluation.nodule_results import NODULES, NoduleResult, NoduleRow
from voxray.evaluation.published import table_named
from voxray.evaluation.report.build import Section, ranked_cases, render
from voxray.evaluation.report.collection import Collection
from voxray.evaluation.report.figures import box_plots, colours_of, view_curves, view_kinds
from voxray.evaluation.report.latex import as_latex, latex_text
from voxray.evaluation.report.tables import (
    Entry,
    Table,
    all_metrics,
    beside,
    calibration,
    costs,
    few,
    headline,
    p_text,
    paired_tests,
)
from voxray.evaluation.results import Evaluation, Group, Row, is_plain_mean

FIRST, SECOND = "small iterations=1 detail_iterations=1", "small iterations=3 detail_iterations=1"


@pytest.fixture(scope="module")
def written(compared: Path, tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    return report([compared], tmp_path_factory.mktemp("report") / "report.html", title="A & B")


@pytest.fixture(scope="module")
def html(written: list[Path]) -> str:
    return written[0].read_text(encoding="utf-8")


def evaluation(**scores: dict[str, float]) -> Evaluation:
    rows = [
        Row(f"c{i}", "closed", model, {"psnr3d": value, "mae_hu": 100 - value, "psnr_dvg": value}, "pa", 2.0 + i, 500.0)
        for model, values in scores.items()
        for i, value in enumerate(values)
    ]
    return Evaluation(tuple(rows), ("psnr3d", "mae_hu", "psnr_dvg"))


# ---------------------------------------------------------------- one file


def test_the_report_is_one_file_that_asks_nobody_for_anything(html: str) -> None:
    text = re.sub(r"base64,[^\"]*", "", html)
    assert not re.search(r"https?:|//[a-z]|<script|<link|<iframe|url\(|@import|\son\w+=", text, re.IGNORECASE)
    sources = re.findall(r'\bsrc="([^"]*)"', html)
    assert len(sources) == len(re.findall("<img", html)) > 8
    assert all(source.startswith(("data:image/svg+xml;base64,", "data:image/png;base64,")) for source in sources)
    for source in sources:
        base64.b64decode(source.partition(",")[2], validate=True)
    assert "default-src 'none'" in html


def test_the_report_says_what_it_is_and_what_it_is_about(html: str) -> None:
    assert html.index("Research software, not a medical device") < html.index("<h1>A &amp; B</h1>")
    for text in (FIRST, SECOND, "Plain mean volume", "Best case of", "Calibration of the uncertainty", "Runtime",
                 "Number of X-rays", "Beside the published numbers", "phantom2"):  # fmt: skip
        assert text in html
    assert "Only 3 cases: intervals of fewer than 20 are too narrow, and p cannot be below 0.25." in html
    assert "may not be ranked" in html


def test_I13_names_are_shown_and_never_run(compared: Path) -> None:
    evil = "<script>alert(1)</script>"
    table = Table(evil, (evil,), ((Entry(evil, evil),),), (evil,))
    text = render(evil, Collection.open([compared]), [Section(evil, evil, (table,))])
    assert "<script" not in text
    assert text.count("&lt;script&gt;") >= 7


@pytest.mark.slow
def test_D1_the_same_results_give_the_same_report(compared: Path, written: list[Path], tmp_path: Path) -> None:
    again = report([compared], tmp_path / "again.html", title="A & B")
    for one, other in zip(written, again, strict=True):
        assert one.read_bytes() == other.read_bytes()


def test_latex_and_csv_lie_beside_it(written: list[Path], compared: Path) -> None:
    assert [file.name for file in written] == ["report.html", "report.tex", "report.csv"]
    tex = written[1].read_text()
    assert tex.count(r"\toprule") == tex.count(r"\bottomrule") == tex.count(r"\begin{table}") > 4
    assert not re.search(r"(?<!\\)[%#]|[±↑↓–−]", tex)
    with written[2].open(newline="") as file:
        line = next(row for row in csv.DictReader(file) if row["model"] == SECOND and row["metric"] == "psnr3d")
    values = Collection.open([compared]).evaluation.scores(Group("closed", "pa", SECOND), "psnr3d").values()
    assert float(line["mean"]) == pytest.approx(sum(values) / 3)
    assert float(line["low95"]) <= float(line["mean"]) <= float(line["high95"])


def test_I12_a_report_is_not_overwritten(compared: Path, tmp_path: Path) -> None:
    (tmp_path / "report.tex").write_text("mine")
    with pytest.raises(InputError, match=r"report\.tex' exists already"):
        report([compared], tmp_path / "report.html")
    assert [file.name for file in tmp_path.iterdir()] == ["report.tex"]


# ---------------------------------------------------------------- folders together


def test_a_model_of_another_folder_stands_beside(
    compared: Path, phantom_model: Path, phantom_store: Path, tmp_path: Path
) -> None:
    compare([f"{phantom_model}{QUICK}:config.noise=0.1"], phantom_store, tmp_path / "more", options=OPTIONS)
    both = Collection.open([compared, tmp_path / "more"])
    assert list(both.models) == [FIRST, SECOND, f"{FIRST} noise=0.1", "mean"]
    last = [group.model for group in both.evaluation.by_group][-2:]  # of both sets of views
    assert last == ["mean", "mean"]
    assert both.missing == 0
    assert both.evaluation.scores(Group("closed", "pa,lateral", f"{FIRST} noise=0.1"), "psnr3d").keys() == {
        "phantom20", "phantom21", "phantom22"
    }  # fmt: skip
    twice = Collection.open([compared, compared])
    assert len(twice.evaluation.rows) == len(Collection.open([compared]).evaluation.rows)


def test_another_model_of_the_same_name_is_told_apart(compared: Path, tmp_path: Path) -> None:
    shutil.copytree(compared, tmp_path / "copy")
    manifest = tmp_path / "copy" / "evaluation.json"
    manifest.write_text(re.sub(r'"sha256": "\w{8}', '"sha256": "00000000', manifest.read_text()))
    both = Collection.open([compared, tmp_path / "copy"])
    assert list(both.models) == [FIRST, SECOND, f"{FIRST} (copy)", f"{SECOND} (copy)", "mean"]


def as_of_another_model(compared: Path, copy: Path, sha256: str, lighter_hu: int = 0) -> None:
    """Copy results as those of another model, whose plain mean is lighter."""
    shutil.copytree(compared, copy)
    manifest = copy / "evaluation.json"
    manifest.write_text(re.sub(r'"sha256": "\w{64}', f'"sha256": "{sha256}', manifest.read_text()))
    folder = ResultsFolder.open(copy)
    for row in (row for row in folder.rows() if row.model == "mean"):
        planes, truth = folder.planes(row)
        folder.enter(row, replace(planes, hu=tuple(hu + lighter_hu for hu in planes.hu)), truth)


def test_plain_means_of_models_that_learned_from_other_scans_are_told_apart(compared: Path, tmp_path: Path) -> None:
    as_of_another_model(compared, tmp_path / "same", "1")
    as_of_another_model(compared, tmp_path / "other", "2", lighter_hu=1)
    same = Collection.open([compared, tmp_path / "same"])
    assert [label for label in same.models if is_plain_mean(label)] == ["mean"]
    three = Collection.open([compared, tmp_path / "same", tmp_path / "other"])
    means = [label for label in three.models if is_plain_mean(label)]
    assert means == [f"mean of {FIRST}", f"mean of {FIRST} (other)"]
    assert {row.model for row in three.evaluation.rows if is_plain_mean(row.model)} == set(means)
    assert render("t", three, []).count("Plain mean volume, without any X-ray.") == 2
    other = next(row for row in three.evaluation.rows if row.model == means[1])
    assert three.origins[other.case, other.group][0].path == tmp_path / "other"


def test_another_scan_of_the_same_name_is_refused(compared: Path, tmp_path: Path) -> None:
    shutil.copytree(compared, tmp_path / "copy")
    manifest = tmp_path / "copy" / "evaluation.json"
    manifest.write_text(re.sub(r'"phantom21": "\w{8}', '"phantom21": "00000000', manifest.read_text()))
    with pytest.raises(InputError, match=r"case 'phantom21' in .*copy' is another scan"):
        Collection.open([compared, tmp_path / "copy"])


def test_other_views_of_the_same_name_are_refused(compared: Path, tmp_path: Path) -> None:
    folder = ResultsFolder.open(Path(shutil.copytree(compared, tmp_path / "copy")))
    views = dict.fromkeys(folder.manifest.views, "elsewhere")
    folder = ResultsFolder.start(folder.path, folder.manifest.model_copy(update={"views": views}), overwrite=True)
    with pytest.raises(InputError, match=r"views 'pa.*' in .*copy' stand elsewhere"):
        Collection.open([compared, folder.path])


def test_folders_of_one_name_and_other_samples_are_told_apart(compared: Path, tmp_path: Path) -> None:
    folders = [compared]
    for samples in (8, 9):
        folders.append(Path(shutil.copytree(compared, tmp_path / str(samples) / "copy")))
        manifest = folders[-1] / "evaluation.json"
        manifest.write_text(re.sub(r'"samples": \d+', f'"samples": {samples}', manifest.read_text()))
    models = list(Collection.open(folders).models)
    assert models[2:-1] == [f"{name} ({at})" for at in ("copy", folders[2]) for name in (FIRST, SECOND)]


def test_what_is_missing_is_said(compared: Path, tmp_path: Path) -> None:
    shutil.copytree(compared, tmp_path / "cut")
    trials = sorted((tmp_path / "cut" / "trials").iterdir())
    for file in trials[:5]:
        file.unlink()
    collection = Collection.open([tmp_path / "cut"])
    assert collection.missing == 5
    assert "5 planned reconstructions are missing" in render("", collection, [])
    for file in trials[5:]:
        file.unlink()
    with pytest.raises(InputError, match="no finished reconstruction"):
        Collection.open([tmp_path / "cut"])


def test_what_is_no_result_or_no_model_is_said(compared: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"holds no results of an evaluation"):
        report([tmp_path], tmp_path / "r.html")
    with pytest.raises(InputError, match=r"call it r\.tex\.html instead"):
        report([compared], tmp_path / "r.tex")
    with pytest.raises(InputError, match="There is no model 'nobody' in these results; there are small"):
        report([compared], tmp_path / "r.html", reference="nobody")


# ---------------------------------------------------------------- planted nodules


def test_planted_nodules_have_a_section_where_a_folder_holds_them(compared: Path, tmp_path: Path) -> None:
    rows = [
        NoduleRow("a", "closed", "m", "pa", i, 0.0, 0.0, 0.0, size, 800.0, -900.0 + 800 * part, -900.0, part)
        for size in (16.0, 32.0) for i, part in enumerate((0.1, 0.2, 0.3))
    ]  # fmt: skip
    planted = tmp_path / "planted"
    planted.mkdir()
    NoduleResult(tuple(rows)).write_csv(planted / NODULES)
    manifest = NoduleManifest(
        cases={"a": ""}, models={"m": ModelEntry(sha256="0123456789abcdef")}, views={}, protocol="closed",
        sizes_mm=(16.0, 32.0), sites=3, seed=7,
    )  # fmt: skip
    (planted / "nodules.json").write_text(manifest.model_dump_json())
    with pytest.raises(InputError, match="planted nodules alone are no report"):
        report([planted], tmp_path / "r.html")
    page, tex, _ = report([compared, planted], tmp_path / "r.html")
    section = page.read_text(encoding="utf-8").partition(". Planted nodules</h2>")[2].partition("</section>")[0]
    cells = re.findall(r"<td>(.*?)</td>", section)
    assert cells[:6] == ["m", "closed", "pa", "16", "3", "800"]
    assert cells[6].startswith("0.200<small>[0.1")
    assert cells[7] == "1.00<small>[1.00, 1.00]</small>"
    assert section.count("<tr") == 1 + 2
    assert section.count("data:image/svg+xml") == 1
    assert "fewer than 30 sites" in section
    assert "m, in planted: SHA-256 0123456789ab, seed 7." in section
    assert "Spheres of soft tissue" in tex.read_text()


def test_O5_coverage_and_width_stand_in_a_table_by_tissue() -> None:
    shares = {f"coverage{level}_lung": float(level - 5) for level in (50, 80, 90)} | {"width90_lung": 123.4}
    everywhere = {f"coverage{level}": 100.0 for level in (50, 80, 90)}
    rows = [Row(f"c{i}", "closed", "m", shares | everywhere, "pa") for i in range(2)]
    rows.append(Row("c0", "closed", "without", dict.fromkeys(shares), "pa"))
    found = calibration(Evaluation(tuple(rows), (*shares, *everywhere)), "closed", "pa")
    assert found is not None
    assert [[entry.text for entry in row] for row in found.rows] == [
        ["m", "everywhere", "100.0", "100.0", "100.0", "–"], ["m", "lungs", "45.0", "75.0", "85.0", "123"]
    ]  # fmt: skip
    assert calibration(Evaluation(tuple(rows[2:]), tuple(shares)), "closed", "pa") is None


def test_without_planted_nodules_there_is_no_such_section(html: str) -> None:
    assert "Planted nodules" not in html


# ---------------------------------------------------------------- tables


def test_the_best_of_a_column_is_bold_in_the_direction_that_is_better() -> None:
    table = headline(evaluation(a=[20.0, 22.0], b=[21.0, 25.0]), "closed", "pa")
    assert table.columns == ("model", "3D PSNR, dB ↑", "MAE, HU ↓")
    assert [[entry.strong for entry in row] for row in table.rows] == [[False, False, False], [False, True, True]]
    assert (table.rows[0][1].text, table.rows[0][1].small) == ("21.00 ± 1.41", "[20.00, 22.00]")
    assert "n = 2" in table.title
    alike = headline(evaluation(a=[20.0, 22.0], b=[22.0, 20.0], c=[19.0, 20.0]), "closed", "pa")
    assert [row[1].strong for row in alike.rows] == [True, True, False]


def test_differences_are_signed_and_tested_against_the_reference() -> None:
    table = paired_tests(evaluation(a=[20.0, 22.0], b=[21.0, 25.0]), "closed", "pa", "a")
    assert table is not None
    assert [entry.text for entry in table.rows[0]] == [
        "b", "3D PSNR, dB ↑", "2", "+2.00", "[+1.00, +3.00]", "0.500", "0.500"
    ]  # fmt: skip
    assert table.rows[1][3].text == "−2.0"
    assert paired_tests(evaluation(a=[20.0]), "closed", "pa", "a") is None


def test_ours_stand_beneath_the_published_ones_of_the_same_convention() -> None:
    table = beside(evaluation(a=[20.0, 22.0]), table_named("dvg-1"), "closed")
    assert table is not None
    assert [entry.text for entry in table.rows[-1]] == ["a (ours, n = 2)", "21.00", "–", "–", "–", "–", "–"]
    assert [row[0].quoted for row in table.rows] == [True] * 7 + [False]
    assert "916 scans for training" in table.notes[0]
    assert beside(evaluation(a=[20.0]), table_named("dx2ct-1"), "closed") is None
    assert beside(evaluation(a=[20.0]), table_named("dvg-1"), "clinical") is None


def test_runtime_is_the_median() -> None:
    table = costs(evaluation(a=[1.0, 1.0, 1.0]))
    assert table is not None
    assert [entry.text for entry in table.rows[0]] == ["a", "closed", "pa", "3.00", "4.00", "0.50"]
    assert costs(Evaluation((Row("c", "closed", "mean", {}),))) is None


@pytest.mark.parametrize(("p", "text"), [(0.0004, "< 0.001"), (0.0312, "0.031"), (1.0, "1.000")])
def test_p_values_are_shown_as_papers_do(p: float, text: str) -> None:
    assert p_text(p) == text


def test_few_cases_are_said_to_be_few() -> None:
    assert few(20) == []
    assert few(4, tested=True) == [
        "Only 4 cases: intervals of fewer than 20 are too narrow, and p cannot be below 0.125."
    ]


def test_latex_escapes_what_means_something_there() -> None:
    assert latex_text(r"50 % of a_b & {c} \d") == r"50 \% of a\_b \& \{c\} \textbackslash{}d"
    rows = ((Entry("p", quoted=True), Entry("1.0", quoted=True)), (Entry("o"), Entry("2.0", "[1, 3]", strong=True)))
    lines = as_latex(Table("T", ("m", "x"), rows)).splitlines()
    at = lines.index(r"p & 1.0 \\")
    assert lines[at + 1 : at + 3] == [r"\midrule", r"o & \textbf{2.0} {\scriptsize [1, 3]} \\"]


def test_lines_part_published_rows_from_ours() -> None:
    rows = tuple((Entry(mark, quoted=mark == "q"),) for mark in "qmqmm")
    assert Table("", ("",), rows).ruled() == [False, True, False, True, False]
    assert Table("", ("",), rows, in_pairs=True).ruled() == [False, False, True, False, False]
    assert as_latex(Table("", ("",), rows, in_pairs=True)).count(r"\midrule") == 2


def test_a_single_case_has_no_spread_and_no_interval() -> None:
    one = evaluation(a=[20.0])
    assert headline(one, "closed", "pa").rows[0][1] == Entry("20.00")
    assert all_metrics(one, "closed", "pa").rows[0][1].text == "20.00"
    two = evaluation(a=[20.0, 22.0])
    assert headline(two, "closed", "pa").rows[0][1].text == "21.00 ± 1.41"


# ---------------------------------------------------------------- figures


def test_best_median_and_worst_are_chosen_by_psnr() -> None:
    scores = evaluation(a=[20.0, 25.0, 23.0, 21.0, 24.0])
    collection = Collection(scores, {}, (), {}, 5, 0)
    group = Group("closed", "pa", "a")
    assert ranked_cases(collection, group) == [("Best", "c1", 25.0), ("Median", "c2", 23.0), ("Worst", "c0", 20.0)]
    one = Collection(evaluation(a=[20.0]), {}, (), {}, 1, 0)
    assert ranked_cases(one, group) == [("Best", "c0", 20.0)]
    assert ranked_cases(one, Group("closed", "pa", "b")) == []


def test_a_set_of_views_stands_on_every_curve_that_it_belongs_to() -> None:
    groups = [Group("closed", views, "a") for views in ("pa", "pa,lateral", "pa,45,lateral", "4 over 180", "8 over 90")]
    found = {group.views: view_kinds(group.views, groups) for group in groups}
    assert found == {
        "pa": [("named views", 1), ("over 180°", 1), ("over 90°", 1)],
        "pa,lateral": [("named views", 2), ("over 180°", 2)],
        "pa,45,lateral": [("named views", 3)],
        "4 over 180": [("over 180°", 4)],
        "8 over 90": [("over 90°", 8)],
    }
    assert view_kinds("pa,lateral", groups[:2]) == [("named views", 2)]


def test_models_have_colours_of_their_own_and_the_mean_is_grey() -> None:
    colours = colours_of(["a", "mean", "b", "a"])
    assert len(set(colours.values())) == 3
    assert colours["mean"] == "#8a8a8a"


def test_a_curve_that_is_a_part_of_another_is_not_drawn_twice() -> None:
    pa, two, oblique, four = (Group("closed", views, "a") for views in ("pa", "pa,lateral", "pa,45", "4 over 180"))
    assert view_curves([pa, two, four]) == {("a", "over 180°"): [(1, pa), (2, two), (4, four)]}
    assert list(view_curves([pa, two, oblique, four])) == [("a", "named views"), ("a", "over 180°")]
    assert list(view_curves([pa, two])) == [("a", "named views")]
    assert view_curves([two, oblique]) == {}


def test_a_model_has_the_same_colour_in_every_figure() -> None:
    rows = [Row(f"c{i}", "closed", model, {"psnr3d": 20.0 + i}, views)
            for model, views in (("a", "pa"), ("b", "pa"), ("b", "pa,lateral")) for i in range(2)]  # fmt: skip
    scores = Evaluation(tuple(rows), ("psnr3d",))
    drawn = base64.b64decode(box_plots(scores, "closed", "pa,lateral", ["psnr3d"]).partition(",")[2]).decode().lower()
    mine = colours_of(["a", "b"])
    assert mine["b"].lower() in drawn
    assert mine["a"].lower() not in drawn
