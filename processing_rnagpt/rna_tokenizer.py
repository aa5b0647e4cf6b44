"""Builds the RNA tokenizer: RNA-FM's 25 tokens as a plain fast tokenizer that AutoTokenizer reloads without code.

"acgT" -> <cls> A C G U <eos> -> [0, 4, 5, 6, 7, 2]
"""

from tokenizers import Regex, Tokenizer, models, normalizers, pre_tokenizers, processors
from transformers import PreTrainedTokenizerFast

# RNA-FM's alphabet in its own order (rna-fm package, fm/data.py); the index is the id.
RNA_FM_TOKENS = (
    ["<cls>", "<pad>", "<eos>", "<unk>"]
    + list("ACGURYKMSWBDHVN-")
    + ["<null_1>", "<null_2>", "<null_3>", "<null_4>"]
    + ["<mask>"]
)


def build_rna_tokenizer(max_nucleotides: int = 1022) -> PreTrainedTokenizerFast:
    """Tokenizer with RNA-FM's ids: one token per nucleotide, upper-cased, T read as U, between <cls> and <eos>.

    Args:
        max_nucleotides: the encoder's limit in nt, 1,022 for RNA-FM; BOS and EOS come on top of it.

    >>> build_rna_tokenizer()("acgT")["input_ids"]
    [0, 4, 5, 6, 7, 2]
    """
    tokenizer = Tokenizer(models.WordLevel({token: i for i, token in enumerate(RNA_FM_TOKENS)}, unk_token="<unk>"))
    # `tokenizers` has no upper-casing normalizer: one replacement per letter of the alphabet.
    upper = [normalizers.Replace(letter.lower(), letter) for letter in "ACGURYKMSWBDHVNT"]
    tokenizer.normalizer = normalizers.Sequence([*upper, normalizers.Replace("T", "U")])
    tokenizer.pre_tokenizer = pre_tokenizers.Split(Regex("."), behavior="isolated")
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<cls> $A <eos>", special_tokens=[("<cls>", 0), ("<eos>", 2)]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        model_max_length=max_nucleotides + 2,
        cls_token="<cls>",
        bos_token="<cls>",
        eos_token="<eos>",
        pad_token="<pad>",
        unk_token="<unk>",
        mask_token="<mask>",
        padding_side="right",
    )
