"""What others store here: a receiver that listens, the inbox it fills, and which series of it have arrived whole."""
