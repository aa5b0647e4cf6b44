"""`import rnagpt.registration` registers RNA-GPT's classes with transformers' AutoClasses.

Without it transformers takes a checkpoint's own copy of the code for a stranger's and asks on the terminal whether to
run it.
"""

from transformers import AutoConfig, AutoModel, AutoModelForCausalLM, AutoProcessor

from modeling_rnagpt import RnaGptConfig, RnaGptForCausalLM, RnaGptModel
from processing_rnagpt import RnaGptProcessor

# exist_ok: loading with trust_remote_code may have registered the checkpoint's copies before
AutoConfig.register(RnaGptConfig.model_type, RnaGptConfig, exist_ok=True)
AutoModel.register(RnaGptConfig, RnaGptModel, exist_ok=True)
AutoModelForCausalLM.register(RnaGptConfig, RnaGptForCausalLM, exist_ok=True)
AutoProcessor.register(RnaGptConfig, RnaGptProcessor, exist_ok=True)

__all__ = ["RnaGptConfig", "RnaGptForCausalLM", "RnaGptModel", "RnaGptProcessor"]
