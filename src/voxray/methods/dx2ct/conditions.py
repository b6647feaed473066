"""From X-rays to the conditions of slices, at three scales."""

from collections.abc import Sequence

import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from voxray.methods.dx2ct.config import ConditionConfig
from voxray.methods.dx2ct.query_transformer import QueryTransformer
from voxray.nets.fourier import FourierEncoding
from voxray.nets.resnet_features import ResNetFeatures

# By how much the feature maps are smaller than the images (conv2_x to conv4_x).
SCALES = (4, 8, 16)


class Conditioner(nn.Module):
    """Feature extractor, encoded places of X-rays and slices, and a 3DPQT for each scale (section 2.2 of the paper).

        c_l = 3DPQT_l(p_l; f_l^PA + q_l^PA, f_l^Lat + q_l^Lat, ...),    l = 1, 2, 3

    Features f are brought to one width by a 1x1 convolution before their encoded places q are added (ours: the paper
    adds them, so that they must be equally wide, and does not say how).
    """

    def __init__(self, config: ConditionConfig) -> None:
        super().__init__()
        self.extractor = ResNetFeatures(config.resnet_width)
        self.narrow = nn.ModuleList(nn.Conv2d(n, config.channels, 1) for n in self.extractor.channels)
        self.of_slices, self.of_xrays = (
            FourierEncoding(config.bands, config.hidden, config.channels) for _ in range(2)
        )  # fmt: skip
        self.transformers = None
        if config.transformer:
            self.transformers = nn.ModuleList(
                QueryTransformer(config.channels, config.blocks, config.heads) for _ in SCALES
            )

    def read(
        self, images: Float[Tensor, "b v h w"], places: Float[Tensor, "b v h w 3"]
    ) -> list[Float[Tensor, "b v c y x"]]:
        """Return f + q of each scale: the features of the X-rays with their places; once for each patient."""
        maps = self.extractor(images.flatten(0, 1))
        encoded = _pooled(self.of_xrays(places.flatten(0, 1)))
        return [
            (narrow(f) + q).unflatten(0, images.shape[:2])
            for narrow, f, q in zip(self.narrow, maps, encoded, strict=True)
        ]

    def forward(
        self, read: Sequence[Float[Tensor, "b v c y x"]], places: Float[Tensor, "b s h w 3"]
    ) -> list[Float[Tensor, "b*s c y x"]]:
        """Return the conditions c of s slices of each patient, from fine to coarse."""
        patients, slices = places.shape[:2]
        found = []
        for scale, (p, f) in enumerate(zip(_pooled(self.of_slices(places.flatten(0, 1))), read, strict=True)):
            if self.transformers is None:
                found.append(p + f.mean(1).repeat_interleave(slices, 0))
                continue
            asked = p.unflatten(0, (patients, slices)).movedim(2, -1)
            told = self.transformers[scale](asked.flatten(1, 3), f.movedim(2, -1).flatten(1, 3))
            found.append(told.reshape(asked.shape).movedim(-1, 2).flatten(0, 1))
        return found


def _pooled(encoded: Float[Tensor, "b h w c"]) -> list[Float[Tensor, "b c y x"]]:
    """Return encoded places, averaged to the sizes of the scales."""
    maps = encoded.movedim(-1, 1)
    return [F.avg_pool2d(maps, scale) for scale in SCALES]
