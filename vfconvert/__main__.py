"""`python -m vfconvert` is the command line."""

from vfconvert.cli.main import main

main()
