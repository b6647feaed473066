"""Tables as LaTeX."""

import re

from voxray.evaluation.report.tables import Entry, Table

# What stands in LaTeX for characters that mean something there, or that its fonts lack.
_LATEX = {
    "\\": r"\textbackslash{}", "&": r"\&", "%": r"\%", "$": r"\$", "#": r"\#", "_": r"\_", "{": r"\{", "}": r"\}",
    "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "±": r"$\pm$", "°": r"$^\circ$", "–": "--", "≥": r"$\geq$",
    "<": "$<$", ">": "$>$", "−": "$-$", "↑": r"$\uparrow$", "↓": r"$\downarrow$", "→": r"$\rightarrow$",
}  # fmt: skip


def as_latex(table: Table) -> str:
    """Return the table for LaTeX with the package booktabs; a line of its own separates quoted from measured rows."""
    lines = [
        r"\begin{table}", r"\centering", rf"\caption{{{latex_text(table.title)}}}",
        rf"\begin{{tabular}}{{l{'r' * (len(table.columns) - 1)}}}", r"\toprule",
        " & ".join(map(latex_text, table.columns)) + r" \\", r"\midrule",
    ]  # fmt: skip
    for row, ruled in zip(table.rows, table.ruled(), strict=True):
        if ruled:
            lines.append(r"\midrule")
        lines.append(" & ".join(map(_latex_entry, row)) + r" \\")
    lines += [r"\bottomrule", r"\end{tabular}"]
    lines += [rf"\par\footnotesize {latex_text(note)}" for note in table.notes]
    return "\n".join([*lines, r"\end{table}", ""])


def latex_text(text: str) -> str:
    """Return text with LaTeX's own characters escaped."""
    return re.sub(".", lambda found: _LATEX.get(found[0], found[0]), text, flags=re.DOTALL)


def _latex_entry(entry: Entry) -> str:
    text = rf"\textbf{{{latex_text(entry.text)}}}" if entry.strong else latex_text(entry.text)
    return rf"{text} {{\scriptsize {latex_text(entry.small)}}}" if entry.small else text
