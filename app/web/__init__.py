"""The pages: review workstation, work lists, reviews, operations."""
