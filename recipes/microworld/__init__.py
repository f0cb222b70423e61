"""The micro-world's expert and amateur: corpus, pre-training, measurement, cards."""
