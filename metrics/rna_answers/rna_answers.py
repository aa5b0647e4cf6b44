"""RNA-GPT's text metrics as an `evaluate` module: ROUGE, and BERTScore or cosine in one of three named modes.

import evaluate
metric = evaluate.load("metrics/rna_answers")
metric.compute(predictions=[...], references=[...], rna_ids=[...], mode="paper", encoders=["bert"])
"""

import datasets
import evaluate

from rnagpt.evaluation.scoring.text_encoders import PRESETS, TextEncoder, load_encoder
from rnagpt.evaluation.scoring.text_scores import corpus_scores
from rnagpt_core.typed_yaml import checked

DESCRIPTION = """Similarity of answers about RNAs with their references. `paper`: the set metric of the RNA-GPT paper,
within an RNA; `aligned`: each answer with its own reference; `sentence`: greedy matching of sentences. Numbers of two
modes must not be compared. ROUGE F1 is averaged over the mode's unit."""
KWARGS = """predictions, references: texts; rna_ids: which RNA each pair is about; mode: paper, aligned or sentence;
encoders: presets (bert, pubmedbert, openai, minilm) or dicts with the fields of
rnagpt.evaluation.scoring.text_encoders.TextEncoder
"""
CITATION = "Xiao et al. 2024, RNA-GPT: Multimodal Generative System for RNA Sequence Understanding"


class RnaAnswers(evaluate.Metric):
    """See the module's text."""

    def _info(self):
        features = {name: datasets.Value("string") for name in ("predictions", "references", "rna_ids")}
        return evaluate.MetricInfo(
            description=DESCRIPTION, citation=CITATION, inputs_description=KWARGS, features=datasets.Features(features)
        )

    def _compute(self, predictions, references, rna_ids, mode="aligned", encoders=()):
        specs = [PRESETS[spec] if isinstance(spec, str) else checked(TextEncoder, spec) for spec in encoders]
        scores = corpus_scores(rna_ids, references, predictions, list(map(load_encoder, specs)), mode)
        return {f"{name}_{part}": value for name, row in scores.items() for part, value in row._asdict().items()}
