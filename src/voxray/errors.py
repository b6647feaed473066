"""What can go wrong, and the exit code that each kind of failure ends the command line with."""


class VoxrayError(Exception):
    """Base of every error that voxray raises on purpose; the message says what, where, and what to do."""

    exit_code = 1


class InputError(VoxrayError):
    """A file, folder or argument that cannot be used as it is."""

    exit_code = 2


class NotFiniteError(InputError):
    """An image or a volume with values that are not finite numbers."""


class GeometryError(InputError):
    """A volume grid or a view that is impossible, or that do not fit together."""


class RecipeError(InputError):
    """A recipe that is not valid."""


class ModelError(VoxrayError):
    """A model folder that is missing, or not what it says it is."""

    exit_code = 3


class CheckpointError(ModelError):
    """Weights that do not fit the recipe, or that are damaged."""


class ResourceError(VoxrayError):
    """Too little memory, disk space or time for what was asked."""

    exit_code = 4


class NumericalError(VoxrayError):
    """A computation that left the finite numbers."""

    exit_code = 5


class VoxrayWarning(UserWarning):
    """Something assumed on the user's behalf; every one of them is written into the report."""
