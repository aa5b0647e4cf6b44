"""metrics/rna_answers -> a Space on the Hub, so that `evaluate.load("OWNER/rna_answers")` finds it.

stage(folder, "owner/rna_answers")
"""

from importlib import resources
from pathlib import Path

from rnagpt import __version__
from rnagpt_core.errors import UserError

FILES = ("rna_answers.py", "requirements.txt", "app.py", "README.md")


def stage(folder: Path, repo: str) -> None:
    """The module, its requirements, a card and the page that shows it, under the names of this repository.

    Raises:
        UserError: the name is none that `evaluate` can load, or the module is not part of this installation.
    """
    owner, name = repo.split("/")
    if not name.isidentifier():
        raise UserError(
            f"evaluate loads NAME.py of a Space as a Python module, and {name!r} can be none: give --repo "
            f"{owner}/rna_answers"
        )
    module = Path(str(resources.files("rnagpt"))) / "metrics" / "rna_answers"
    if not all((module / file).is_file() for file in FILES):
        raise UserError("the evaluation module is not part of this installation: install RNA-GPT again")
    folder.mkdir(exist_ok=True)
    renamed = {
        "OWNER/rna_answers": repo,
        '"rna_answers.py"': f'"{name}.py"',
        "rnagpt[eval]": f"rnagpt[eval]=={__version__}",
    }
    for file in FILES:
        text = (module / file).read_text(encoding="utf-8")
        for ours, theirs in renamed.items():
            text = text.replace(ours, theirs)
        (folder / file.replace("rna_answers", name)).write_text(text, encoding="utf-8")
