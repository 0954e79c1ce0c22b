"""Where models come from: one source a file, one line each in `workbench.model.SOURCES`."""
