"""Recipes: how what is shipped was made."""
