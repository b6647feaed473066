"""A task for several processes, in a module that these can import."""

import os

from voxray.errors import InputError


class Doubler:
    """Doubles numbers; a refused one is an error, and another kills its process."""

    def __init__(self, refused: int | None = None, deadly: int | None = None) -> None:
        self.refused, self.deadly, self.count = refused, deadly, 0

    def __call__(self, number: int) -> int:
        if number == self.refused:
            raise InputError(f"{number} is refused.")
        if number == self.deadly:
            os._exit(9)
        self.count += 1
        return 2 * number
