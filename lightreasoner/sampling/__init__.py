"""Contrastive sampling: the expert's trajectories, their steps' contrast, the samples."""
