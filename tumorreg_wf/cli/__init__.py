"""Commands: arguments in, exit code out."""
