"""Pad, stop and BOS tokens are settled when the LLM is loaded, whatever its tokenizer lacks."""

import pytest
from llm_families import FAMILIES, Family, build

GEMMA = (
    "{{ bos_token }}{%- for m in messages -%}{{ '<|start_header_id|>' + m['role'] + '\\n' + m['content'] | trim + "
    "'<|eot_id|>\\n' }}{%- endfor -%}"
    "{%- if add_generation_prompt -%}{{ '<|start_header_id|>assistant\\n' }}{%- endif -%}"
)
RNA = "GCGGAUUUAGCUCAGUUGGGAGAGC"


def saved(folder, family, adds_bos=False):
    """Folder of a tiny LLM with its tokenizer."""
    from tokenizers.processors import TemplateProcessing

    llm, tokenizer = build(family)
    if adds_bos:
        tokenizer.backend_tokenizer.post_processor = TemplateProcessing(
            single="<|begin|> $A", special_tokens=[("<|begin|>", tokenizer.bos_token_id)]
        )
    llm.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


@pytest.mark.parametrize("name", ["llama3", "mistral", "gpt2"])
def test_an_llm_without_pad_token_pads_a_batch_and_answers_as_without_padding(tmp_path, tiny_parts, name):
    import torch

    from rnagpt.checkpoints.checkpoint import build as build_checkpoint

    model, processor = build_checkpoint(str(saved(tmp_path, FAMILIES[name])), str(tiny_parts / "encoder"), seed=0)
    assert processor.tokenizer.pad_token_id == processor.tokenizer.eos_token_id != processor.rna_token_id
    asked = [
        [{"role": "user", "content": [{"type": "rna", "rna": RNA[:n]}, {"type": "text", "text": "Type?"}]}]
        for n in (8, 25)
    ]
    with torch.inference_mode():
        together = model(**processor(asked)).logits[:, -1]
        alone = torch.cat([model(**processor(one)).logits[:, -1] for one in asked])
    # positions of learned embeddings are counted by `generate`, not by the family's forward
    assert torch.allclose(together[1], alone[1], atol=1e-4)
    answers = [model.generate(**processor(one), max_new_tokens=5, do_sample=False)[0, -5:] for one in asked]
    in_batch = model.generate(**processor(asked), max_new_tokens=5, do_sample=False)[:, -5:]
    assert all(torch.equal(one, other) for one, other in zip(answers, in_batch, strict=True))


def test_the_end_of_a_turn_stops_an_answer_and_is_learned(tmp_path, tiny_parts):
    from processing_rnagpt.collator import SharedPrefixCollator
    from rnagpt.checkpoints.checkpoint import build as build_checkpoint

    folder = saved(tmp_path, Family("gemma", {"head_dim": 16}, template=GEMMA))  # its eos token is <|im_end|>
    model, processor = build_checkpoint(str(folder), str(tiny_parts / "encoder"), seed=0)
    end = processor.tokenizer.convert_tokens_to_ids("<|eot_id|>")
    assert end in model.generation_config.eos_token_id and processor.tokenizer.eos_token_id != end
    rows = [{"rna_id": "a", "sequence": RNA, "pairs": [{"question": "Type?", "answer": "tRNA."}]}]
    batch = SharedPrefixCollator(processor)(rows)
    assert batch["labels"][0, -1] == end


def test_our_templates_begin_by_bos_where_the_tokenizer_does(tmp_path, tiny_parts):
    from rnagpt.checkpoints.checkpoint import build as build_checkpoint

    for adds_bos in (False, True):
        folder = saved(tmp_path / str(adds_bos), FAMILIES["llama2"], adds_bos)
        _, processor = build_checkpoint(str(folder), str(tiny_parts / "encoder"), template="paper")
        ids = processor([{"role": "user", "content": "Type?"}])["input_ids"][0].tolist()
        assert ids.count(processor.tokenizer.bos_token_id) == int(adds_bos)


def test_a_system_message_goes_before_the_question_where_the_template_knows_no_system_role(tmp_path, tiny_parts):
    from jinja2 import TemplateError

    from rnagpt.checkpoints.checkpoint import build as build_checkpoint

    no_system = (
        "{%- if messages[0]['role'] == 'system' -%}{{ raise_exception('no system role') }}{%- endif -%}" + GEMMA
    )
    folder = saved(tmp_path, Family("gemma", {"head_dim": 16}, template=no_system))
    _, processor = build_checkpoint(str(folder), str(tiny_parts / "encoder"))
    question = [{"type": "rna", "rna": RNA}, {"type": "text", "text": "Type?"}]
    asked = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": question}]
    for sanitize in (False, True):
        ids = processor(asked, sanitize_control_tokens=sanitize)["input_ids"][0]
        text = processor.tokenizer.decode(ids).replace("<RNAHere>", "")
        assert text.startswith("<|begin|><|start_header_id|>user\nBe brief.\n\n<RNA></RNA>\nType?<|eot_id|>")
        assert int((ids == processor.rna_token_id).sum()) == len(RNA)
    with pytest.raises(TemplateError):
        processor([{"role": "system", "content": "Be brief."}])
