"""Fills model_card.md, which becomes the README.md of every checkpoint.

What is not known is said to be unknown: a card never claims a training or an evaluation that it was not given.
"""

import re
from importlib import resources
from pathlib import Path
from string import Template

from rnagpt import __version__

UNTRAINED = (
    "**It has not been trained.** The projector holds random numbers, so the language model cannot read what the "
    "encoder says: answers about an RNA are worth nothing. It is the starting point of training."
)
UNKNOWN_STATE = "How well it reads RNA was not recorded in this card: treat its answers as untested."
# parts whose licence is known by their name; anything else is said to be unchecked
LICENCES = {
    "llama-3": "Meta Llama 3 Community License: name it, and mind its acceptable-use policy",
    "smollm2": "Apache-2.0",
    "rna-fm": "MIT, as the RNA-FM project publishes it",
    "multimolecule": "AGPL-3.0: whoever offers it over a network also offers the source",
    "packaged": "Apache-2.0 (the small encoder that ships with the package)",
}


def fill(
    llm: str,
    encoder: str,
    parameters: dict[str, int],
    max_nucleotides: int,
    state: str = UNKNOWN_STATE,
    training: str = "Not recorded in this card.",
    evaluation: str = "None is recorded in this card.",
) -> str:
    """The card's text (Markdown with a YAML head).

    Args:
        llm, encoder: as they were named when the checkpoint was built; of a local path only the last part is told.
        parameters: of "encoder", "projector" and "llm".
        max_nucleotides: the encoder's limit, nt.
    """
    names = {"llm": public_name(llm), "encoder": public_name(encoder)}
    on_the_hub = [public_name(name) for name in (llm, encoder) if is_hub_id(name)]
    template = (resources.files("rnagpt") / "model_card.md").read_text(encoding="utf-8")
    return Template(template).substitute(
        base_model="".join(["base_model:\n", *(f"- {name}\n" for name in on_the_hub)]) if on_the_hub else "",
        llm_name=names["llm"],
        encoder_name=names["encoder"],
        projector_origin="random numbers" if state == UNTRAINED else "training",
        **{f"{part}_parameters": f"{count:,}" for part, count in parameters.items()},
        max_nucleotides=f"{max_nucleotides:,}",
        state=state,
        training=training,
        evaluation=evaluation,
        licences="\n".join(f"- {name}: {licence_of(name)}" for name in names.values()),
        version=__version__,
    )


def is_hub_id(name: str) -> bool:
    """Whether a name can only be a repository on the Hub.

    >>> is_hub_id("meta-llama/Meta-Llama-3-8B-Instruct"), is_hub_id("./weights/rna-fm"), is_hub_id("rna-fm")
    (True, False, False)
    """
    return bool(re.fullmatch(r"[\w-][\w.-]*/[\w-][\w.-]*", name)) and not Path(name).exists()


def public_name(name: str) -> str:
    """A name that may be published: a Hub id as it is, of a path the last part only.

    >>> public_name("weights/deep/RNA-FM_pretrained.pth"), public_name("config:tiny/config.json")
    ('RNA-FM_pretrained.pth', 'config.json (random weights)')
    """
    if is_hub_id(name):
        return name
    path, random = name.removeprefix("config:"), name.startswith("config:")
    return (Path(path).name or path) + (" (random weights)" if random else "")


def licence_of(name: str) -> str:
    """What is known of the licence of a part, by its name.

    >>> licence_of("meta-llama/Meta-Llama-3-8B-Instruct")
    'Meta Llama 3 Community License: name it, and mind its acceptable-use policy'
    """
    known = [licence for part, licence in LICENCES.items() if part in name.lower()]
    return known[0] if known else "not known here; see where it comes from"
