"""Publishing to the Hugging Face Hub, each by one command that refuses what is wrong: model, dataset, metric."""
