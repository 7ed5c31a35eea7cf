"""Dataset versions: git holds pointers and history, DVC holds the data, the manifest holds SHA-256 of every file."""
