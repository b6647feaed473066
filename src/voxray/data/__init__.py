"""CTs for training and evaluation: prepared, kept, varied, and made up."""
