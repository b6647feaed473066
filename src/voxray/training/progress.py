"""How training says where it is."""

from collections.abc import Callable

# Called with what is being done ("autoencoder: loss 0.0123"), how much of it is done, and how much there is.
Told = Callable[[str, int, int], None]
