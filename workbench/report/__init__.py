"""Reports: rows of what was measured, and one file for each form they are printed in."""
