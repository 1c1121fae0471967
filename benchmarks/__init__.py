"""Measurements, each with its command. Nothing here is imported by the package."""
