"""Artifacts on disk: their digests, tables, shards, and where results are put."""
