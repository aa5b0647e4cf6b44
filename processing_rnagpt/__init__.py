"""RNA-GPT's processor (ships with every checkpoint) and, not shipped, the RNA tokenizer's builder and the collator."""

from .processing_rnagpt import RnaGptProcessor
from .rna_sequences import RnaInput

RnaGptProcessor.register_for_auto_class()

__all__ = ["RnaGptProcessor", "RnaInput"]
