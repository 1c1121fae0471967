"""The command line: every command parses, makes one call and renders. Heavy packages are imported inside commands."""
