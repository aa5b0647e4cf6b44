"""An RNA's secondary structure, folded by ViennaRNA and drawn as SVG."""

import html
import re

MAX_NT = 600  # longer RNAs: folding takes seconds, and the drawing cannot be read
MARGIN = 14
COLOURS = {"A": "#c9e4ca", "C": "#bcd4e6", "G": "#f6d6ad", "U": "#f4c2c2"}


def fold(sequence: str) -> tuple[str, float]:
    """Minimum-free-energy structure in dot-bracket notation and its energy in kcal/mol (ViennaRNA, 37 degrees C)."""
    import RNA

    # IUPAC codes pair with nothing
    return RNA.fold(re.sub("[^ACGU]", "N", sequence))


def drawn(sequence: str, name: str) -> str:
    """An `<svg>` of the folded RNA with a circle per nucleotide; a sentence instead where there is none to draw."""
    if len(sequence) > MAX_NT:
        return f"<p>Its structure is not drawn: it has {len(sequence):,} nt, and up to {MAX_NT} are folded here.</p>"
    structure, energy = fold(sequence)
    if "(" not in structure:
        return "<p>ViennaRNA finds no stable fold: nothing to draw.</p>"
    points = coordinates(structure)
    width = max(x for x, _ in points) + MARGIN
    height = max(y for _, y in points) + MARGIN
    title = f"Secondary structure of {name} predicted by ViennaRNA, {energy:.1f} kcal/mol"
    marks = [line(points[i], points[i + 1], "backbone") for i in range(len(points) - 1)]
    marks += [line(points[i], points[j], "pair") for i, j in pairs(structure)]
    for number, (letter, (x, y)) in enumerate(zip(sequence, points, strict=True), start=1):
        look = f'cx="{x:.1f}" cy="{y:.1f}" r="6" fill="{COLOURS.get(letter, "#dddddd")}"'
        marks.append(f"<circle {look}><title>{letter}{number}</title></circle>")
        marks.append(f'<text x="{x:.1f}" y="{y + 2.6:.1f}">{letter}</text>')
    return (
        f'<svg class="fold" role="img" viewBox="0 0 {width:.0f} {height:.0f}" xmlns="http://www.w3.org/2000/svg">'
        f"<title>{html.escape(title)}</title>{''.join(marks)}</svg>"
        f"<p>Predicted by ViennaRNA: {energy:.1f} kcal/mol. A prediction, not a measured structure.</p>"
    )


def coordinates(structure: str) -> list[tuple[float, float]]:
    """Where each nucleotide stands, (x, y) from (MARGIN, MARGIN) on."""
    import RNA

    places = RNA.get_xy_coordinates(structure)
    points = [(places.get(i).X, places.get(i).Y) for i in range(len(structure))]
    left, top = min(x for x, _ in points), min(y for _, y in points)
    return [(x - left + MARGIN, y - top + MARGIN) for x, y in points]


def pairs(structure: str) -> list[tuple[int, int]]:
    """Paired positions, from 0.

    >>> pairs("(.())")
    [(2, 3), (0, 4)]
    """
    opened, found = [], []
    for i, mark in enumerate(structure):
        if mark == "(":
            opened.append(i)
        elif mark == ")":
            found.append((opened.pop(), i))
    return found


def line(start: tuple[float, float], end: tuple[float, float], kind: str) -> str:
    """An SVG line."""
    (x1, y1), (x2, y2) = start, end
    return f'<line class="{kind}" x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}"/>'
