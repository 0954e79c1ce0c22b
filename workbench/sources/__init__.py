"""Where models come from: one source a file; those of live modules have a line in `live.BUILDERS`."""
