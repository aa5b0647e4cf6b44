"""RNA-FM twice with the same seeded random weights: the `rna-fm` package's own model, and transformers' EsmModel.

The published weights need not be downloaded to compare the two: what is compared is the computation.
"""

from argparse import Namespace
from pathlib import Path

import torch


def rna_fm_twice(layers: int = 12, seed: int = 0):
    """(rna-fm's model, its batch converter, EsmModel), both models in evaluation mode; 12 layers are the true size."""
    import fm
    from transformers import EsmConfig

    from modeling_rnagpt.configuration_rnagpt import RNA_FM
    from rnagpt.checkpoints.rnafm_weights import OFFICIAL_WORDS, filled

    alphabet = fm.data.Alphabet.from_architecture("roberta_large", theme="rna")
    sizes = {"embed_dim": 640, "ffn_embed_dim": 5120, "attention_heads": 20, "max_positions": 1024}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        reference = fm.BioBertModel(
            Namespace(arch="roberta_large", layers=layers, emb_layer_norm_before=True, **sizes), alphabet
        ).eval()
        with torch.no_grad():
            for name, parameter in reference.named_parameters():  # biases and norms start at 0 and 1
                if "contact_head" not in name:
                    parameter.add_(0.02 * torch.randn_like(parameter))
            reference.embed_tokens.weight[alphabet.padding_idx] = 0
    # a wrong name in the table would put a tensor elsewhere, and the two would not compute the same
    config = EsmConfig(**{**RNA_FM, "num_hidden_layers": layers})
    encoder = filled(config, reference.state_dict(), OFFICIAL_WORDS, Path("rna-fm"))
    return reference, alphabet.get_batch_converter(), encoder


def reference_features(reference, tokens: torch.Tensor) -> torch.Tensor:
    """rna-fm's last hidden states (rnas, length, 640)."""
    last = len(reference.layers)
    return reference(tokens, repr_layers=[last])["representations"][last]
