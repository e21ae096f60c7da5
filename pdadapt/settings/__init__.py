"""All settings of a run, read from recipes (YAML) and the command line, and the prompts."""
