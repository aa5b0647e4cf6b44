"""RNA-GPT's configuration and model: a frozen RNA encoder, a linear projector and a causal LM.

The modules beside this file ship with every checkpoint and import nothing of this package; this file does not ship.
Importing it makes `save_pretrained` copy them into the checkpoint.
"""

from .configuration_rnagpt import RnaGptConfig
from .modeling_rnagpt import RnaGptForCausalLM, RnaGptModel, RnaGptPreTrainedModel

RnaGptConfig.register_for_auto_class()
RnaGptModel.register_for_auto_class("AutoModel")
RnaGptForCausalLM.register_for_auto_class("AutoModelForCausalLM")

__all__ = ["RnaGptConfig", "RnaGptForCausalLM", "RnaGptModel", "RnaGptPreTrainedModel"]
