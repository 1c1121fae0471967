"""Images for the fit: found in a folder, turned into tensors, split, or synthesised where there are none."""
