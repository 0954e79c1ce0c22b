"""The runtimes, one a file: what `device.session.open_session` chooses among."""
