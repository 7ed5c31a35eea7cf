"""The command line."""

import gc

# Imports make hundreds of thousands of objects that stay: collecting among them is a tenth of `redraft status`.
gc.set_threshold(100_000, 20, 20)
