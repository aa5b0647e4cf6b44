"""A tiny RNA-GPT with random weights (built in seconds, runs in milliseconds): real classes and files, no download."""

import os
import sys
from pathlib import Path

import pytest

# a test may take a piece of another folder's tests, whichever of them are run
sys.path += map(str, Path(__file__).parent.glob("[a-z]*/"))

if "PYTEST_XDIST_WORKER" in os.environ:  # before torch is imported: threads that wait for each other's core cost both
    os.environ.setdefault("OMP_NUM_THREADS", "1")

# what the tiny byte-level tokenizer learns its merges from; any other text still encodes, byte by byte
SENTENCES = [
    "What type of RNA is this?",
    "This RNA is a transfer RNA (tRNA). It carries an amino acid to the ribosome.",
    "This RNA is a microRNA (miRNA). It silences messenger RNA.",
    "Is this a ribosomal RNA? Yes. No. It is not known.",
    "Which organism is it from? It is from yeast, a fungus.",
    "user\nassistant\nsystem\n<RNA></RNA>\n",
] * 3
TINY_MAX_NUCLEOTIDES = 120
TINY_MAX_POSITIONS = 512


@pytest.fixture(scope="session")
def tiny_model():
    """(model, processor): 2 layers of 32 in the encoder and in the LLM, RNAs up to 120 nt, contexts up to 512 tokens.

    Shared by the whole session: a test that changes it works on a copy.
    """
    import torch
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import EsmConfig, EsmModel, LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

    from modeling_rnagpt import RnaGptForCausalLM
    from modeling_rnagpt.configuration_rnagpt import RNA_FM
    from processing_rnagpt import RnaGptProcessor
    from processing_rnagpt.rna_tokenizer import build_rna_tokenizer
    from rnagpt.checkpoints.checkpoint import chat_template

    backend = Tokenizer(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    special = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    backend.train_from_iterator(
        SENTENCES, trainers.BpeTrainer(vocab_size=400, special_tokens=special, initial_alphabet=alphabet)
    )
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=backend, bos_token="<|im_start|>", eos_token="<|im_end|>", pad_token="<|im_end|>"
    )
    templates = {"default": chat_template("chatml"), "paper": chat_template("paper")}
    processor = RnaGptProcessor(tokenizer, build_rna_tokenizer(TINY_MAX_NUCLEOTIDES), chat_template=templates)

    small = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 64}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        encoder = EsmModel(
            EsmConfig(**{**RNA_FM, **small, "max_position_embeddings": TINY_MAX_NUCLEOTIDES + 4}),
            add_pooling_layer=False,
        )
        llm = LlamaForCausalLM(
            LlamaConfig(
                **small,
                vocab_size=len(tokenizer),
                max_position_embeddings=TINY_MAX_POSITIONS,
                initializer_range=0.3,  # large enough for the RNA to change the answer
                bos_token_id=tokenizer.bos_token_id,
                eos_token_id=tokenizer.eos_token_id,
                pad_token_id=tokenizer.pad_token_id,
            )
        )
        model = RnaGptForCausalLM.from_encoder_and_llm(
            encoder, llm, rna_token_id=processor.rna_token_id, rna_drop_token_ids=processor.rna_drop_token_ids
        )
    return model, processor


@pytest.fixture(scope="session")
def tiny_checkpoint(tiny_model, tmp_path_factory) -> Path:
    """The tiny model saved as a whole checkpoint. Read only."""
    from rnagpt.checkpoints.checkpoint import save

    folder = tmp_path_factory.mktemp("tiny") / "checkpoint"
    save(*tiny_model, folder)
    return folder


@pytest.fixture(scope="session")
def tiny_parts(tiny_model, tmp_path_factory) -> Path:
    """Folders of a tiny LLM and of a tiny encoder that reads the facts table's longest RNA (1,024 nt). Read only."""
    import torch
    from transformers import EsmConfig, EsmModel, LlamaForCausalLM

    folder = tmp_path_factory.mktemp("tiny_parts")
    model, processor = tiny_model
    llm = LlamaForCausalLM(model.config.text_config)
    llm.model.load_state_dict(model.model.language_model.state_dict())
    llm.lm_head.load_state_dict(model.lm_head.state_dict())
    llm.save_pretrained(folder / "llm")
    processor.tokenizer.chat_template = processor.chat_template["default"]
    processor.tokenizer.save_pretrained(folder / "llm")
    config = EsmConfig(**{**model.config.rna_config.to_dict(), "max_position_embeddings": 1028})
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        EsmModel(config, add_pooling_layer=False).save_pretrained(folder / "encoder")
    return folder


@pytest.fixture(scope="session")
def tiny_run(tiny_parts, tmp_path_factory) -> tuple[Path, list[Path]]:
    """A finished quick start of the tiny model, two RNAs per type, and its two recipes. Read only; a minute's work."""
    import yaml
    from test_training import recipe

    from rnagpt import quickstart

    folder = tmp_path_factory.mktemp("quickstart")
    paths = []
    for n, stage in enumerate(("alignment", "instruction"), start=1):
        paths.append(folder / f"tiny_stage{n}.yaml")
        paths[-1].write_text(yaml.safe_dump(recipe(tiny_parts, folder / f"unused{n}", stage)))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(quickstart, "TEST_RNAS_PER_TYPE", 2)
        quickstart.work(folder / "run", paths)
    return folder / "run", paths
