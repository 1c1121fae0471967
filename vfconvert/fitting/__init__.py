"""From a teacher and a plan to a fitted student, without labels: fit, re-fit what is kept, reconstruct, output pass."""
