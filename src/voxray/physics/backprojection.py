"""Line integrals brought back into the volume."""

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from voxray.physics.projector import Projector


def back_project(images: Sequence[Float[Tensor, "_ _"]], projector: Projector) -> Float[Tensor, "z y x"]:
    """Sum over the views of what each ray holds for each mm of its way through the volume; per mm.

    V(x) = I(r) / |L(r)| for voxels x on the ray r, and 0 where there is no ray (arXiv 2503.17804, section III-B, whose
    dp we take for 1 mm; the release leaves |L| out). Between rays we take the mean of those that cross the voxel,
    weighted as the projector weights them: A^T(I / L) / A^T(1), view by view. The paper does not say.
    """
    ones = [torch.ones_like(image) for image in images]
    lengths = projector.forward(images[0].new_ones(projector.grid.shape))
    least = float(projector.grid.spacing_mm.min())  # rays that but touch a corner say nothing
    per_mm = [
        torch.where(length > least, image / length.clamp_min(least), 0.0)
        for image, length in zip(images, lengths, strict=True)
    ]
    total = images[0].new_zeros(projector.grid.shape)
    for i in range(len(images)):
        one = Projector(projector.grid, projector.views.subset([i]))
        weight = one.adjoint([ones[i]])
        total += torch.where(weight > 0, one.adjoint([per_mm[i]]) / weight.clamp_min(1e-12), 0.0)
    return total
