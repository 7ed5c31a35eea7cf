"""Where exams come from: folders, DICOMweb servers, PACS by DIMSE, a storage receiver, S3; one protocol."""
