"""How long work took: what browsers send (`contract`), how it becomes minutes (`place`, `minutes`), where it is kept
(`store`), and which recorded minutes count (`entries`). docs/time.md says it in words.
"""
