"""What a run will take, before it runs: problems, tokens, FLOP, bytes, seconds, memory, disk."""
