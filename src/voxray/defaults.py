"""What is used where nothing is said; here, for the API and the command line have to agree on it."""

# The model that reconstructs.
DEFAULT_MODEL = "accord"

# The model that brings results onto finer voxels, and the name that stands for interpolation in its place.
UPSAMPLE_MODEL, INTERPOLATION = "upsample", "linear"
