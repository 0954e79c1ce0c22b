"""Where artifacts run: profiles of devices, runtimes here, transports and runners elsewhere."""
