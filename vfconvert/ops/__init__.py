"""Pure tensor mathematics: crops and windows, moments, matching, the fit. No modules, no files."""
