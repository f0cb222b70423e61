"""Accuracy of a model on problems, and what one model has gained over another."""
