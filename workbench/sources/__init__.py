"""Where models come from: one source a file; live modules have a line in `live.BUILDERS`."""
