"""Objects of an S3 bucket: found by their headers, fetched in parts, compared with their checksums."""

from redraft.sources.s3.source import S3Source

__all__ = ["S3Source"]
