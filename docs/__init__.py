"""The site of the documentation, and what it generates from the package."""
