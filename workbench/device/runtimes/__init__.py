"""The runtimes, one a file: what `device.runner.open_session` chooses among."""
