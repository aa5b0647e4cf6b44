"""metrics/rna_answers -> a Space on the Hub, so that `evaluate.load("OWNER/rna_answers")` finds it.

stage(folder, "owner/rna_answers")
"""

from importlib import resources
from pathlib import Path

from rnagpt import __version__
from rnagpt_core.errors import UserError

CARD = """---
title: RNA answers
emoji: 🧬
colorFrom: blue
colorTo: green
sdk: gradio
app_file: app.py
pinned: false
license: apache-2.0
tags:
- evaluate
- metric
- rna-gpt
description: Similarity of answers about RNAs with their references, in three named modes.
---

# RNA answers

ROUGE, and BERTScore or one-vector cosine, of answers about RNAs. It needs RNA-GPT beside it: `pip install
'rnagpt[eval]=={version}'`.

```python
import evaluate

metric = evaluate.load("{repo}")
metric.compute(predictions=["A tRNA."], references=["It is a tRNA."], rna_ids=["a"], mode="aligned")
```

| mode | compares | of use for |
|---|---|---|
| `paper` | the set of answers about an RNA with the set of references; which question one belongs to is forgotten | the RNA-GPT paper's tables |
| `aligned` | each answer with its own reference | the headline |
| `sentence` | sentences, matched greedily | long annotations |

Numbers of two modes must not be compared. A similarity says nothing about reading RNA until it stands beside that of
the same questions asked with another RNA: sentences about RNAs resemble each other.
"""  # noqa: E501
APP = """import evaluate
from evaluate.utils import launch_gradio_widget

launch_gradio_widget(evaluate.load("{name}.py"))
"""


def stage(folder: Path, repo: str) -> None:
    """The module, its requirements, a card and the page that shows it.

    Raises:
        UserError: the name is none that `evaluate` can load, or the module is not part of this installation.
    """
    name = repo.split("/")[1]
    if not name.isidentifier():
        raise UserError(
            f"evaluate loads NAME.py of a Space as a Python module, and {name!r} can be none: give --repo "
            f"{repo.split('/')[0]}/rna_answers"
        )
    module = Path(str(resources.files("rnagpt"))) / "metrics" / "rna_answers"
    if not (module / "rna_answers.py").is_file():
        raise UserError("the evaluation module is not part of this installation: install RNA-GPT again")
    folder.mkdir()
    (folder / f"{name}.py").write_text((module / "rna_answers.py").read_text())
    (folder / "requirements.txt").write_text(f"rnagpt[eval]=={__version__}\nevaluate\n")
    (folder / "app.py").write_text(APP.replace("{name}", name))
    (folder / "README.md").write_text(CARD.replace("{version}", __version__).replace("{repo}", repo))
