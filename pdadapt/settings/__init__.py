"""Recipes and prompts: every setting, from YAML and the command line."""
