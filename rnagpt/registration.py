"""`import rnagpt.registration` registers RNA-GPT's classes with transformers' AutoClasses."""

from rnagpt.checkpoints.registration import RnaGptConfig, RnaGptForCausalLM, RnaGptModel, RnaGptProcessor

__all__ = ["RnaGptConfig", "RnaGptForCausalLM", "RnaGptModel", "RnaGptProcessor"]
