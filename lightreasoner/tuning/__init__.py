"""LoRA fine-tuning of the expert on the samples, the merge, and the model that goes out."""
