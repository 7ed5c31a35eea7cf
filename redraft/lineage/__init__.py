"""Where a model comes from, and proof that nothing was altered since."""
