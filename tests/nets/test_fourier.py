"""Places as numbers that a network can tell apart."""

import torch

from voxray.nets.fourier import FourierEncoding


def test_waves_double_in_frequency_beside_the_places_themselves() -> None:
    made = FourierEncoding(bands=3, hidden=4, channels=2)
    given: list[torch.Tensor] = []
    made.net.register_forward_hook(lambda _, inputs, __: given.append(inputs[0]))
    place = torch.tensor([[0.25, -0.5, 0.1]])
    assert made(place).shape == (1, 2)
    angles = [torch.pi * 2**k * float(x) for x in place[0] for k in range(3)]
    expected = torch.cat([place[0], torch.tensor(angles).sin(), torch.tensor(angles).cos()])
    assert torch.allclose(given[0][0], expected, atol=1e-5)
