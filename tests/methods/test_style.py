"""Style transfer: where its change arrives, what it leaves alone, and what it learns from."""

from dataclasses import replace

import pytest
import torch
from contract_models import small
from learn_stages import grey, sample_of
from small_models import GRID, SETUP, patient, xrays_of
from torch import Tensor, nn

from voxray.errors import GeometryError
from voxray.geometry import ViewGeometry
from voxray.images import Radiograph
from voxray.methods.style import Style, in_scan
from voxray.nets.translation import ImagePool
from voxray.recipes.recipe import parse_recipe
from voxray.training.order import generator, seeded

VIEWS = ViewGeometry.biplanar(setup=SETUP)
PA = ViewGeometry.from_names(["pa"], setup=SETUP)


def style(name: str = "style", *overrides: str) -> Style:
    """Return a brief recipe's method, which changes nothing."""
    with seeded("tests", "style"):
        made = parse_recipe(small(name, brief=True).to_yaml(), name, overrides).build()
    assert isinstance(made, Style)
    return made.eval()


def estimated(views: ViewGeometry, seed: int = 1) -> Radiograph:
    return grey(sample_of(patient(seed), views))


class Mark(nn.Module):
    """Adds a spot at the patient's right, above the middle."""

    def forward(self, image: Tensor, seen: Tensor) -> Tensor:
        spot = torch.zeros_like(image)
        spot[..., 10:14, 8:14] = 0.5
        return (image + spot) * seen


def marked(name: str = "style") -> Style:
    made = style(name)
    made.cycle.there = Mark()  # type: ignore[assignment]
    return made


def test_a_network_that_has_not_learned_changes_nothing() -> None:
    before = estimated(VIEWS)
    after = style().translated(before)
    assert after.kind == "estimated"
    for one, other in zip(before.images, after.images, strict=True):
        assert torch.allclose(one, other, atol=1e-5)


@pytest.mark.parametrize(
    "views",
    [
        PA,
        replace(PA, u_mm=-PA.u_mm),
        ViewGeometry.from_names(["ap"], setup=SETUP),
        PA.resized([(90, 120)]),
        PA.shifted([30.0, -20.0, 100.0]),
    ],
    ids=["pa", "mirrored", "ap", "finer", "elsewhere"],
)
def test_a_change_arrives_at_the_same_side_of_the_patient_on_any_detector(views: ViewGeometry) -> None:
    here = views.shifted(-views.isocentre())
    before = replace(estimated(here), views=views)
    after = marked().translated(before)
    added = (style().laid_out(after) - style().laid_out(before))[0, 0]
    assert float(added[11:13, 9:13].mean()) == pytest.approx(0.5, abs=0.12)
    added[8:16, 6:16] = 0
    assert float(added.abs().max()) < 0.02


def test_an_image_is_laid_out_as_one_side_shows_it() -> None:
    mirrored = replace(estimated(PA), views=replace(PA, u_mm=-PA.u_mm), images=(estimated(PA).images[0].flip(1),))
    assert torch.allclose(style().laid_out(mirrored), style().laid_out(estimated(PA)), atol=1e-5)
    front, back = (style().laid_out(estimated(ViewGeometry.from_names([name], setup=SETUP)))[0, 0]
                   for name in ("pa", "ap"))  # fmt: skip
    assert (front - back).abs().mean() < 0.5 * (front - back.flip(-1)).abs().mean()


def test_other_views_stay_and_are_refused_alone() -> None:
    before = estimated(VIEWS)
    after = marked().translated(before)
    assert not torch.equal(after.images[0], before.images[0])
    assert torch.equal(after.images[1], before.images[1])
    after = marked("style-lateral").translated(before)
    assert torch.equal(after.images[0], before.images[0])
    assert not torch.equal(after.images[1], before.images[1])
    views = ViewGeometry.from_angles([0, 180, 15, 45, 90, -90], setup=SETUP)
    assert style().own(views) == [0, 1, 2]
    assert style("style-lateral").own(views) == [4, 5]
    with pytest.raises(GeometryError, match=r"views near 0 degrees, not for lateral"):
        style().translated(estimated(ViewGeometry.from_names(["lateral"], setup=SETUP)))


def test_what_is_not_valid_is_not_seen_and_stays_filled() -> None:
    before = estimated(PA)
    valid = torch.ones(SETUP.shape, dtype=torch.bool)
    valid[:16] = False
    covered = replace(before, valid=(valid,))
    assert bool((style().laid_out(covered)[0, :, :4] == 0).all())
    after = marked().translated(covered)
    assert torch.equal(after.valid[0], valid)
    assert torch.equal(after.images[0][:16], after.images[0][16:17].expand(16, -1))


def test_ends_of_scans_are_left_out() -> None:
    image = torch.full((100, 60), 1.5)
    image[:, 20:40] += 1
    image[:20], image[20:24] = 0, 0.6
    assert in_scan(image)[:, 0].tolist() == [0.0] * 29 + [1.0] * 71
    whole = style("style", "config.pixels=64").laid_out(xrays_of(patient(1), PA))[0]
    assert bool(in_scan(whole[0])[20:50].all())


def test_a_pair_is_shown_where_both_show_something() -> None:
    made = style()
    real, synthetic = torch.rand(3, 2, 32, 32), torch.rand(2, 2, 32, 32)
    real[:, 1] = synthetic[:, 1] = 1
    real[:, :, :5], synthetic[:, :, 28:] = 0, 0
    made.learn_from(real)
    one, other, seen = made._pair({"synthetic": synthetic}, generator(0))
    assert one.shape == other.shape == seen.shape == (2, 1, 32, 32)
    assert seen[:, 0, :, 0].sum(1).tolist() == [23.0, 23.0]
    for image in (one, other):
        assert torch.equal(image != 0, seen != 0)


def test_a_pool_gives_old_images_back_and_a_state_goes_on() -> None:
    def run(pool: ImagePool, first: int, last: int) -> list[float]:
        images = ((n, torch.full((1, 1, 4, 4), float(n))) for n in range(first, last))
        return [float(pool.exchanged(image, generator(n)).mean()) for n, image in images]

    pool = ImagePool(3, 4)
    given = run(pool, 1, 40)
    assert given[:3] == [1, 2, 3]
    old = [n for n, found in enumerate(given, 1) if found != n]
    assert 8 < len(old) < 30
    assert all(found <= n for n, found in enumerate(given, 1))
    assert len(set(given[3:])) == len(given) - 3, "an image that was given back is gone"
    again, resumed = ImagePool(3, 4), ImagePool(3, 4)
    run(again, 1, 20)
    resumed.load_state_dict(again.state_dict())
    assert run(resumed, 20, 40) == given[19:]


def test_alone_it_translates_estimates_only() -> None:
    made = marked()
    made.anatomy.fit([patient(seed) for seed in range(3)], None)
    xrays = estimated(PA)
    exact = replace(xrays, kind="line_integral")
    one, other = (made.reconstruct(x, rng=generator(0)).volume for x in (xrays, exact))
    assert one.grid.is_close(GRID)
    assert not torch.allclose(one.hu, other.hu)
    plain = style()
    plain.anatomy.load_state_dict(made.anatomy.state_dict())
    assert torch.equal(plain.reconstruct(exact, rng=generator(0)).volume.hu, other.hu)
