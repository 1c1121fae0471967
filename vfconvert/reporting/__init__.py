"""The report: the data, and how people and programs get to read it."""
