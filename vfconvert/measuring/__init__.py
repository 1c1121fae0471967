"""How long things take, fairly compared: side by side in one run, in turns."""
