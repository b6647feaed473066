"""One HTML file about evaluations, with LaTeX and CSV tables beside it."""
