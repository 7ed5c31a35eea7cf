"""redraft: active-learning rounds for medical image segmentation, versioned and costed."""

__version__ = "0.1.0"
