"""redraft: active-learning rounds for medical image segmentation, versioned and costed."""

import logging

__version__ = "0.1.0"

# pydicom logs every value that it complains about, beside warning of it. A filter: it sets its log's level when loaded.
logging.getLogger("pydicom").addFilter(lambda record: False)
