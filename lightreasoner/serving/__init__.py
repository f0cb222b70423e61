"""Servers that write for a stage: vLLM's, our own or named ones, and any OpenAI-compatible one."""
