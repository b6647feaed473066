"""The papers' tables, filled with the models at hand."""

from collections.abc import Sequence
from dataclasses import replace

import pytest
from comparing import TINY
from small_models import GRID

from voxray.evaluation.bench import TABLES, AtHand, candidates, entries, filled, metrics
from voxray.evaluation.published import Cell, table_named
from voxray.evaluation.results import Evaluation, Row
from voxray.evaluation.run import Contender
from voxray.recipes import Recipe, load_recipe


def at_hand(recipe: Recipe) -> AtHand:
    def vary(overrides: tuple[str, ...]) -> Contender:
        label = " ".join([recipe.name, *(text.removeprefix("config.") for text in overrides)])
        return Contender(label, lambda: None, GRID, overrides=overrides)  # type: ignore[arg-type,return-value]

    return AtHand(recipe, vary)


NET, BOTH, VPGE, ATLAS = (at_hand(load_recipe(name)) for name in ("dvg-net", "dvg-anyview", "dvg-vpge", "atlas"))


def texts(name: str, rows: Sequence[Row], models: Sequence[AtHand]) -> list[list[str]]:
    table = filled(Evaluation(tuple(rows), metrics()), name, models)
    return [[entry.text for entry in row] for row in table.rows]


def scored(model: str, views: str, **scores: float) -> Row:
    return Row("c", "closed", model, scores, views)


def test_every_model_is_given_what_the_tables_ask_for() -> None:
    found = [(contender.label, views.name) for contender, views in entries([ATLAS, BOTH, VPGE], TINY)]
    assert len(found) == len(set(found))
    labels = list(dict.fromkeys(label for label, _ in found))
    assert labels[0] == "atlas"
    assert [name for label, name in found if label == "atlas"] == ["pa", "pa,lateral"]
    variants = [label.removeprefix("dvg-anyview ") for label in labels if label.startswith("dvg-anyview ")][:2]
    assert variants == ["ensemble=1", "consistency.final=false"]
    for variant in variants:
        assert [name for label, name in found if label == f"dvg-anyview {variant}"] == ["pa", "pa,lateral"]
    assert "dvg-anyview new_view.angles_deg=[90]" not in labels
    assert [name for label, name in found if label == "dvg-vpge"] == ["pa", "pa,lateral", "pa,45,lateral"]
    angles = {label: [name for other, name in found if other == label] for label in labels if "angles" in label}
    pa = {f"dvg-anyview new_view.angles_deg=[{angle}]": ["pa"] for angle in ("10", "30", "60", "120", "45,90")}
    assert {label: angles[label] for label in pa} == pa
    assert angles["dvg-anyview new_view.angles_deg=[22.5,67.5]"] == ["pa,lateral", "pa,45,lateral"]
    assert angles["dvg-anyview new_view.angles_deg=[45]"] == ["pa"]
    order = [label for label, _ in found]
    assert order == sorted(order, key=labels.index)


def test_rows_of_methods_that_are_not_there_are_empty_and_say_so() -> None:
    rows = [scored("dvg-net", "pa", psnr_dvg=23.456, ssim_dvg=0.5), scored("dvg-net", "pa,lateral", psnr_dvg=27.0)]
    found = texts("dvg-7", rows, [NET])
    empty = ["voxray: no such model at hand", *["–"] * 6]
    names = [row[0] for row in found]
    assert names[:5:2] == ["X2CT-CNN", "X2CT-GAN", "DVG-Net (no diffusion)"]
    assert names[6:8] == ["voxray: dvg-net consistency.final=false", "DVG-Diffusion"]
    assert found[1] == found[3] == found[8] == empty
    assert found[5] == ["voxray: dvg-net", "23.46", "0.500", "–", "27.00", "–", "–"]
    assert found[4][1:3] == ["23.08", "0.568"]


def test_models_without_a_row_stand_beneath_the_tables_of_methods() -> None:
    rows = [scored("atlas", "pa", psnr_dvg=20.0)]
    assert texts("dvg-1", rows, [ATLAS])[-1] == ["voxray: atlas", "20.00", *["–"] * 5]
    assert texts("dvg-2", rows, [ATLAS])[-1][0] == "voxray: no such model at hand"


def test_angles_and_numbers_of_new_views_are_those_of_the_variants() -> None:
    rows = [scored("dvg-vpge", "pa", psnr_dvg=1.0), scored("dvg-anyview", "pa", psnr_dvg=2.0),
            scored("dvg-anyview new_view.angles_deg=[45,90]", "pa", psnr_dvg=3.0)]  # fmt: skip
    angles = texts("dvg-3", rows, [BOTH, VPGE])
    assert angles[0] == ["PSNR (DVG), dB", "22.29", "22.46", "22.47", "22.43", "22.48", "22.54", "22.47"]
    assert angles[1] == ["voxray: dvg-vpge, dvg-anyview", "1.00", "–", "–", "–", "–", "2.00", "–"]
    numbers = texts("dvg-5", rows, [BOTH, VPGE])
    assert [row[0] for row in numbers] == ["0 new", "voxray: dvg-vpge", "1 new", "voxray: dvg-anyview", "2 new",
                                           "voxray: dvg-anyview"]  # fmt: skip
    assert [row[1] for row in numbers[1::2]] == ["1.00", "2.00", "3.00"]


def test_views_that_are_synthesised_stand_in_the_column_of_their_method() -> None:
    found = texts("dvg-6", [scored("dvg-net", "pa,lateral", psnr_view45=30.0)], [NET])
    at = [row[0] for row in found].index("PA + lateral, PSNR of a view at 45°, dB")
    assert found[at + 1] == ["voxray: dvg-net", "–", "–", "–", "30.00"]


def test_a_model_without_new_views_has_no_variants() -> None:
    cell = Cell("DVG-Diffusion", "pa", "psnr_dvg", (10.0,), None)
    config = BOTH.recipe.config | {"new_view": None}
    without = replace(BOTH, recipe=BOTH.recipe.model_copy(update={"config": config}))
    assert candidates(cell, [BOTH]) == [BOTH]
    assert candidates(cell, [without]) == []


def test_several_models_of_a_method_have_a_row_each() -> None:
    single = at_hand(load_recipe("dvg-single"))
    rows = [scored("dvg-anyview", "pa", psnr_dvg=1.0), scored("dvg-single", "pa", psnr_dvg=2.0)]
    found = texts("dvg-1", rows, [BOTH, single])
    assert [row[:2] for row in found[-6:-4]] == [["voxray: dvg-anyview", "1.00"], ["voxray: dvg-single", "2.00"]]


def test_a_single_sample_and_one_that_was_not_made_consistent_stand_beside_the_default() -> None:
    rows = [scored("dvg-anyview", "pa", psnr_dvg=3.0), scored("dvg-anyview ensemble=1", "pa", psnr_dvg=2.0),
            scored("dvg-anyview consistency.final=false", "pa", psnr_dvg=1.0)]  # fmt: skip
    found = texts("dvg-1", rows, [BOTH])
    assert [row[:2] for row in found[-3:]] == [
        ["voxray: dvg-anyview", "3.00"], ["voxray: dvg-anyview ensemble=1", "2.00"],
        ["voxray: dvg-anyview consistency.final=false", "1.00"],
    ]  # fmt: skip
    assert NET.variants() == [("config.consistency.final=false",)], "nothing is drawn"
    assert ATLAS.variants() == [], "it is nothing but agreement"
    for recipe, off in (("x2ct-gan", []), ("x2ct-gan-small", [("config.consistency=null",)])):
        assert at_hand(load_recipe(recipe)).variants() == off


@pytest.mark.parametrize("name", TABLES)
def test_every_table_can_be_filled_with_nothing(name: str) -> None:
    table = filled(Evaluation(()), name, [])
    assert len(table.rows) == 2 * len(table_named(name).cells)
    assert {len(row) for row in table.rows} == {len(table.columns)}
