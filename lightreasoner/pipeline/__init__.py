"""The graph of stages, and the store that runs each of them once."""
