"""The front door for Python: every stage of the command line as a function of typed arguments that returns values."""
