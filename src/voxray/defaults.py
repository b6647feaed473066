"""What is used where nothing is said; here, for the API and the command line have to agree on it."""

# The model that reconstructs.
DEFAULT_MODEL = "accord"
