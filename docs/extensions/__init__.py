"""What Sphinx learns for these pages: the reference of the command line, and the drawings of the method."""
