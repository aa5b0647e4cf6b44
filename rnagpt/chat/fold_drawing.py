"""An RNA's secondary structure, folded and drawn by ViennaRNA."""

import html
import re
import tempfile
from pathlib import Path

MAX_NT = 600  # longer RNAs: folding takes seconds, and the drawing cannot be read
# the scripts and styles of ViennaRNA's drawing, its white background and ids, none of which a page must have of it
FOREIGN = re.compile(
    r"<\?xml.*?\?>|<script.*?</script>|<style.*?</style>|<rect[^>]*/>| (?:id|onclick)=\"[^\"]*\"", re.S
)


def fold(sequence: str) -> tuple[str, float]:
    """Minimum-free-energy structure in dot-bracket notation and its energy in kcal/mol (ViennaRNA, 37 degrees C)."""
    import RNA

    # IUPAC codes pair with nothing
    return RNA.fold(re.sub("[^ACGU]", "N", sequence))


def drawing(sequence: str, name: str) -> str:
    """An `<svg>` of the folded RNA with a letter per nucleotide; a sentence instead where there is none to draw."""
    import RNA

    if len(sequence) > MAX_NT:
        return f"<p>Its structure is not drawn: it has {len(sequence):,} nt, and up to {MAX_NT} are folded here.</p>"
    structure, energy = fold(sequence)
    if "(" not in structure:
        return "<p>ViennaRNA finds no stable fold: nothing to draw.</p>"
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "fold.svg"
        RNA.svg_rna_plot(sequence, structure, str(path))
        svg = FOREIGN.sub("", path.read_text(encoding="utf-8"))
    title = html.escape(f"Secondary structure of {name} predicted by ViennaRNA, {energy:.1f} kcal/mol")
    height, width = re.search(r'height="(\d+)" width="(\d+)"', svg).groups()
    # a height and a width would not shrink with the page; the two ends are what a reader looks for first
    svg = re.sub(
        r"<svg[^>]*>", f'<svg class="fold" role="img" viewBox="0 0 {width} {height}"><title>{title}</title>', svg
    )
    letters = re.findall(r"<text[^>]*>\w</text>", svg)
    for letter, end in ((letters[0], "5′"), (letters[-1], "3′")):
        svg = svg.replace(
            letter, letter + re.sub(r">\w<", f' dx="-9" dy="-4">{end}<', letter).replace("nucl", "end nucl")
        )
    return f"{svg}<p>Predicted by ViennaRNA: {energy:.1f} kcal/mol. A prediction, not a measured structure.</p>"
