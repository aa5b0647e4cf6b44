"""LoRA reaches every linear layer of every family's blocks, and the projector is always saved beside it."""

import dataclasses

import pytest
from llm_families import FAMILIES, build

from rnagpt_core.errors import UserError


def lora_recipe(**lora):
    from rnagpt.training.recipe import recipe_from

    model = {"llm": "an-llm", "encoder": "packaged"}
    return recipe_from({"stage": "instruction", "output": "out", "model": model, "data": {}, "sft": {}, "lora": lora})


@pytest.mark.parametrize("name", [name for name in FAMILIES if name != "mamba"])
def test_lora_reaches_every_linear_layer_of_every_block(name):
    import torch
    from peft import get_peft_model
    from transformers.pytorch_utils import Conv1D

    from rnagpt.checking.layouts import around
    from rnagpt.training.trainer import lora_config, reach_all_layers

    llm, _ = build(FAMILIES[name])
    linear = {
        name
        for name, module in llm.base_model.named_modules()
        if isinstance(module, torch.nn.Linear | Conv1D) and not name.endswith("mixer.out_proj")
    }
    model, recipe = around(llm), lora_recipe(r=2)
    adapted = get_peft_model(model, reach_all_layers(lora_config(recipe), recipe, model))
    reached = {
        name.partition("language_model.")[2] for name, module in adapted.named_modules() if hasattr(module, "lora_A")
    }
    assert reached - {""} == linear
    trained = {name for name, parameter in adapted.named_parameters() if parameter.requires_grad}
    assert all("lora_" in name or "projector" in name for name in trained)


def test_llamas_layers_are_those_that_the_earlier_versions_trained():
    from rnagpt.checking.layouts import around
    from rnagpt.training.trainer import LORA_TARGETS, lora_config, reach_all_layers

    model, recipe = around(build(FAMILIES["llama3"])[0]), lora_recipe(r=2)
    assert reach_all_layers(lora_config(recipe), recipe, model).target_modules == LORA_TARGETS


def test_what_else_is_saved_does_not_drop_the_projector():
    from rnagpt.training.trainer import lora_config

    assert set(lora_config(lora_recipe(modules_to_save=["lm_head"])).modules_to_save) == {"projector", "lm_head"}


def test_initialisations_that_change_the_base_are_refused():
    from rnagpt.training.trainer import lora_config

    with pytest.raises(UserError, match="init_lora_weights"):
        lora_config(dataclasses.replace(lora_recipe(), lora={"init_lora_weights": "pissa_niter_4"}))
