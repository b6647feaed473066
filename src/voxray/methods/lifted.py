"""X-rays lifted into the volume, as the view parameter guided encoder (VPGE) of DVG-Diffusion needs them."""

from collections.abc import Sequence
from typing import Literal

from jaxtyping import Float
from pydantic import Field
from torch import Tensor

from voxray.data.dataset import Outside
from voxray.geometry import ViewGeometry
from voxray.methods.anatomy import Anatomy
from voxray.methods.stages import MethodConfig
from voxray.physics.attenuation import MU_WATER_PER_MM, mu_from_unit, mu_to_hu, to_unit_range
from voxray.physics.backprojection import back_project
from voxray.physics.consistency import Noise, Scene, make_consistent
from voxray.physics.projector import Projector


class LiftConfig(MethodConfig):
    """How X-rays are brought into the volume.

    `path_length` is the paper's back-projection: each voxel receives the ray's value divided by the ray's length in the
    volume; views are summed. `consistent` is ours: the mean anatomy made consistent with the X-rays, which holds
    what they say at the scale of a CT, for any number of views. `transpose` is the release's, for its weights: ten
    times the projector's transpose, in voxels, of X-rays from 0 to 1, each by its own minimum and maximum.
    """

    kind: Literal["path_length", "consistent", "transpose"] = Field(default="path_length", description="see above")
    scale: float = Field(
        default=1.0, gt=0,
        description="path_length: what a view whose rays see water alone brings; fixed, never the batch's own",
    )  # fmt: skip
    iterations: int = Field(default=10, ge=0, description="consistent: of conjugate gradients")
    lengths_mm: tuple[float, ...] = Field(default=(5.0, 10.0), strict=False, description="consistent: blurs of changes")
    noise: float = Field(default=0.05, gt=0, description="consistent: standard deviation of a line integral")


def lift(
    config: LiftConfig,
    anatomy: Anatomy,
    images: Sequence[Float[Tensor, "_ _"]],
    views: ViewGeometry,
    outside: Outside,
    noise: Noise | None = None,
) -> tuple[Float[Tensor, "z y x"], Float[Tensor, "Z Y X"]]:
    """Bring the line integrals of any number of views into the volume.

    Args:
        config: which way.
        anatomy: mean anatomy, on whose grid the result is.
        images: line integrals, one image (rows, columns) a view.
        views: about the origin.
        outside: what is around the volume.
        noise: standard deviation of a line integral, or of each pixel's, where it is not the configuration's.

    Returns:
        The lifted volume, of values of about 0..1, and what is taken to be around it, per mm.
    """
    scene = anatomy.scene(outside)
    if config.kind == "transpose":
        return transposed([_from_0_to_1(image) for image in images], Projector(anatomy.grid, views)), scene.around
    if config.kind == "path_length":
        return back_project(images, Projector(anatomy.grid, views)) * (config.scale / MU_WATER_PER_MM), scene.around
    changes = anatomy.variations(outside, config.lengths_mm)
    agreed = make_consistent(
        scene, images, views, changes, noise=config.noise if noise is None else noise, iterations=config.iterations
    )  # fmt: skip
    return to_unit_range(mu_to_hu(agreed.scene.mu)), agreed.scene.around


def lift_new(
    config: LiftConfig,
    anatomy: Anatomy,
    unit: Float[Tensor, "z y x"],
    views: ViewGeometry,
    around: Float[Tensor, "Z Y X"],
    outside: Outside,
) -> Float[Tensor, "z y x"]:
    """Project a volume of 0..1 into new views, and lift what they see: BP(FP(V)) (eq. 8 and 9).

    The release projects the numbers from 0 to 1, in voxels, divides by 10, and lifts them as they are.
    """
    if config.kind == "transpose":
        projector = Projector(anatomy.grid, views)
        voxel = float(anatomy.grid.spacing_mm.min())
        return transposed([image / (10 * voxel) for image in projector.forward(unit)], projector)
    images = Scene(mu_from_unit(unit), anatomy.grid, around, anatomy.support).project(views)
    return lift(config, anatomy, images, views, outside)[0]


def transposed(images: Sequence[Float[Tensor, "_ _"]], projector: Projector) -> Float[Tensor, "z y x"]:
    """Return ten times the transpose of the projection, lengths being counted in voxels, as the release does it.

    It marches along rays in steps of a tenth of a voxel, with a transpose that is half a voxel off; ours is exact.
    """
    return projector.adjoint(images) * (10 / float(projector.grid.spacing_mm.min()))


def _from_0_to_1(image: Float[Tensor, "rows columns"]) -> Float[Tensor, "rows columns"]:
    low, high = image.min(), image.max()
    return (image - low) / (high - low).clamp_min(1e-12)
