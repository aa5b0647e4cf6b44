"""RNAs as people give them, and whether a model can read them together: asked before anything is tokenised."""

import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING

from rnagpt.known_rnas.rnacentral_ids import fetch, is_rnacentral_id
from rnagpt_core.errors import UserError
from rnagpt_core.sequences import MAX_RECORDS, Record, parse_fasta, parse_sequence

if TYPE_CHECKING:  # importing it brings torch
    from processing_rnagpt import RnaGptProcessor
    from processing_rnagpt.rna_sequences import RnaReader


def read_rnas(
    text: str, source: str, rna_id: str = "rna", max_records: int = MAX_RECORDS, online: bool = True
) -> list[Record]:
    """The RNAs that a text stands for: FASTA, a sequence, or, where `online`, an RNAcentral id, which is fetched.

    Args:
        source: names the text in errors; `rna_id` a sequence without a name.
    """
    if text.lstrip().startswith(">"):
        return parse_fasta(text, source, max_records=max_records)
    if online and is_rnacentral_id(text):
        print(f"fetching {text.strip()} from RNAcentral ...", file=sys.stderr, flush=True)
        return [fetch(text)]
    return [parse_sequence(text, source, rna_id)]


def check_lengths(rnas: Sequence[Record], processor: "RnaGptProcessor", context: int) -> None:
    """UserError when the model cannot read these RNAs together: the one place where the chat asks about lengths.

    A processor whose `long_rna` is "error" refuses what is longer than the encoder reads at once. With the others the
    LLM's context is the limit: compared here with the soft tokens that the RNAs take at least, before anything is
    tokenised or encoded, and by `Engine.prepare` with the whole prompt.

    Args:
        context: most tokens of the LLM's prompt and answer.
    """
    reader, pool = processor.rna_reader, processor.rna_pool_size
    # k-mers and the like: no RNA tokenizer packs a hundred nt into a token
    most_nt = 1 if reader.alphabet.table is not None else 100
    slots = []
    for rna in rnas:
        tokens = -(-len(rna) // most_nt)
        if processor.long_rna == "error" and len(tokens_of(rna, reader)) > reader.max_tokens:
            raise UserError(
                f"record {rna.rna_id} has {len(rna):,} nt, more than the {reader.max_tokens:,} nt that this model's "
                "encoder reads: give a part of it"
            )
        slots.append(-(-(min(tokens, reader.max_tokens) if processor.long_rna == "truncate" else tokens) // pool))
        if slots[-1] >= context:
            raise UserError(
                f"record {rna.rna_id} has {len(rna):,} nt, which take {slots[-1]:,} tokens or more, and this model's "
                f"context has {context:,}: give a part of it, at most {(context - 1) * pool * most_nt:,} nt"
            )
    if sum(slots) >= context:
        raise UserError(
            f"the {len(rnas)} RNAs have {sum(map(len, rnas)):,} nt, which take {sum(slots):,} tokens or more together,"
            f" and this model's context has {context:,}: give fewer of them, or parts"
        )


def tokens_of(rna: Record, reader: "RnaReader") -> Sequence:
    """The encoder's tokens; of a genome only its letters, which are enough to say no."""
    if reader.alphabet.table is not None or len(rna) > 100 * reader.max_tokens:
        return rna.sequence
    return reader.tokenizer(rna.sequence, add_special_tokens=False, truncation=False, verbose=False)["input_ids"]
