"""Many models with one command: what is to be done, what is done, and a pool of processes that does the rest."""
