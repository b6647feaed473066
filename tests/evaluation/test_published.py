"""The numbers of the papers: complete, and each in a convention that has a name."""

import pytest

from voxray.errors import InputError
from voxray.evaluation.catalogue import GROUPS, HEADLINE, ON_REQUEST, metric_named, select
from voxray.evaluation.published import heading, published_tables, recipes_of, table_named
from voxray.evaluation.report.tables import published_texts
from voxray.recipes import recipe_names


def value(table: str, **said: object) -> float | None:
    found = [cell.value for row in table_named(table).cells for cell in row
             if all(getattr(cell, name) == wanted for name, wanted in said.items())]  # fmt: skip
    assert len(found) == 1
    return found[0]


def test_numbers_stand_where_the_papers_have_them() -> None:
    two, psnr = "pa,lateral", "psnr_dvg"
    assert value("dvg-1", method="DVG-Diffusion", views=two, metric=psnr) == 26.84
    assert value("dvg-2", method="VPGE-Diffusion", views="pa", metric="lpips_dvg") == 37.59
    assert value("dvg-3", new_deg=(90.0,), metric=psnr) == 22.54
    assert value("dvg-5", views="pa", new_deg=(45.0, 90.0), metric="ssim_dvg") == 0.543
    assert value("dvg-5", views="pa,45,lateral", new_deg=(), metric=psnr) == 27.49
    assert value("dvg-6", method="DVG-Net (no diffusion)", views=two, metric="psnr_view45") == 27.43
    assert value("dvg-7", method="DVG-Net (no diffusion)", views=two, metric=psnr) == 27.25
    assert value("dx2ct-1", method="DX2CT", views="pa", metric="ssim_perx2ct") == 0.643
    assert value("dx2ct-1", method="2DCNN", views=two, metric="psnr_perx2ct") is None
    assert value("x2ct", method="X2CT-GAN", views=two, metric="psnr_x2ct") == 26.19
    assert value("psct-lidc", method="PSCT-Net", metric="psnr3d_psct") == 22.14
    assert value("liftxr-lidc", method="LiftXR", metric="ssim_liftxr") == 71.72


def test_the_same_number_of_two_tables_is_the_same() -> None:
    """What DVG-Diffusion reports twice: without a new view it is VPGE-Diffusion, its angles' best is its final one."""
    for metric in ("psnr_dvg", "ssim_dvg", "lpips_dvg"):
        vpge = value("dvg-2", method="VPGE-Diffusion", views="pa", metric=metric)
        assert (
            value("dvg-3", new_deg=(), metric=metric) == value("dvg-5", new_deg=(), views="pa", metric=metric) == vpge
        )
        final = value("dvg-1", method="DVG-Diffusion", views="pa", metric=metric)
        assert value("dvg-5", new_deg=(90.0,), views="pa", metric=metric) == final


def test_every_number_has_a_convention_that_voxray_knows_or_says_that_it_is_another() -> None:
    cells = [cell for table in published_tables() for row in table.cells for cell in row]
    assert len(cells) > 250
    for metric in {cell.metric for cell in cells}:
        assert metric_named(metric) is not None or heading(metric) != metric
    for table in published_tables():
        assert table.source.data
        assert "no ranking" in table.caution


def test_published_numbers_keep_the_digits_that_were_printed() -> None:
    assert published_texts(table_named("dvg-1"))[0] == ["19.01", "0.480", "49.71", "22.85", "0.595", "46.05"]
    assert published_texts(table_named("dx2ct-1"))[0] == ["–", "–", "–", "24.471", "0.549", "0.427"]


def test_the_recipes_that_stand_for_a_method_exist() -> None:
    names = [name for row in table_named("dvg-2").row_names for name in recipes_of(row)]
    assert {name for name in names if name.startswith("dvg-")} - {"dvg-release"} <= set(recipe_names())
    assert "dvg-net" in recipes_of("DVG-Net (no diffusion)")
    assert recipes_of("nobody") == ()


def test_tables_have_names_of_their_own() -> None:
    names = [table.id for table in published_tables()]
    assert len(names) == len(set(names))


# ---------------------------------------------------------------- the catalogue that they are named in


def test_metrics_have_names_of_their_own() -> None:
    names = [metric.name for group in GROUPS.values() for metric in group]
    assert len(names) == len(set(names))
    assert not set(names) & set(GROUPS)
    assert set(HEADLINE) <= set(names)


def test_metrics_are_chosen_by_name_and_group() -> None:
    assert [metric.name for metric in select(["ssim_dvg", "psnr3d", "psnr_dvg"])] == ["psnr3d", "psnr_dvg", "ssim_dvg"]
    everything = [metric.name for metric in select()]
    assert tuple(everything[:5]) == HEADLINE
    assert len(everything) == sum(len(group) for name, group in GROUPS.items() if name not in ON_REQUEST)
    assert {metric.name for metric in select(["lpips"])} == {metric.name for metric in GROUPS["lpips"]}
    with pytest.raises(InputError, match=r"no metric 'psnr'; the groups of metrics are main, .*, the metrics psnr3d"):
        select(["psnr"])
