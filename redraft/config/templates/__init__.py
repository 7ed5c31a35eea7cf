"""Project templates, shipped as data."""
