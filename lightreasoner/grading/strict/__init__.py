"""The strict verdict: whether a response states the gold answer, mathematically."""
