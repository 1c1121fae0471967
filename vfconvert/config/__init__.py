"""Recipes: files that say what options of the command line say (`vfconvert.recipes` is about files of weights)."""
