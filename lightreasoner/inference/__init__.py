"""Models that read and write: loading, prompts, decoding, and who does it."""
