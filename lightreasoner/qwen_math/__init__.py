"""The verdict of the Qwen2.5-Math toolkit: how it reads answers and compares them."""
