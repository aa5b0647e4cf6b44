"""RNA-FM twice with the same seeded random weights: the `rna-fm` package's own model, and transformers' EsmModel.

The published weights need not be downloaded to compare the two: what is compared is the computation.
"""

from argparse import Namespace

import torch

# rna-fm's name -> EsmModel's, in the order in which they are replaced
RENAMED = {
    "embed_tokens.": "embeddings.word_embeddings.",
    "embed_positions.": "embeddings.position_embeddings.",
    "emb_layer_norm_before.": "embeddings.layer_norm.",
    "emb_layer_norm_after.": "encoder.emb_layer_norm_after.",
    "layers.": "encoder.layer.",
    ".self_attn_layer_norm.": ".attention.LayerNorm.",
    ".self_attn.out_proj.": ".attention.output.dense.",
    ".self_attn.q_proj.": ".attention.self.query.",
    ".self_attn.k_proj.": ".attention.self.key.",
    ".self_attn.v_proj.": ".attention.self.value.",
    ".fc1.": ".intermediate.dense.",
    ".fc2.": ".output.dense.",
    ".final_layer_norm.": ".LayerNorm.",
}


def rna_fm_twice(layers: int = 12, seed: int = 0):
    """(rna-fm's model, its batch converter, EsmModel), both models in evaluation mode; 12 layers are the true size."""
    import fm
    from transformers import EsmConfig, EsmModel

    from modeling_rnagpt.configuration_rnagpt import RNA_FM

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
    encoder = EsmModel(EsmConfig(**{**RNA_FM, "num_hidden_layers": layers}), add_pooling_layer=False).eval()
    state = {}
    for name, tensor in reference.state_dict().items():
        if name.startswith(("contact_head", "lm_head")):
            continue
        for old, new in RENAMED.items():
            name = name.replace(old, new, 1) if name.startswith(old) or not old[0].isalpha() else name
        state[name] = tensor
    left = encoder.load_state_dict(state, strict=False)
    missing = [name for name in left.missing_keys if "contact_head" not in name and "position_ids" not in name]
    assert not missing and not left.unexpected_keys, (missing, left.unexpected_keys)
    return reference, alphabet.get_batch_converter(), encoder


def reference_features(reference, tokens: torch.Tensor) -> torch.Tensor:
    """rna-fm's last hidden states (rnas, length, 640)."""
    last = len(reference.layers)
    return reference(tokens, repr_layers=[last])["representations"][last]
