"""What the suites share: addresses, signatures, raw frames, raw requests."""
