"""What several models are compared by: baselines, ablations, the paper's Table 1, pairs."""
