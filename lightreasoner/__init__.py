"""LightReasoner (arXiv 2510.07962): a model reasons better by contrast with a weaker one."""
