"""The study: the paper's claims, tried in the micro-world over several seeds, negative ones too."""
