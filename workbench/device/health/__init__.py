"""What a device is, how it is doing, and how it is prepared: asked through its transport."""
