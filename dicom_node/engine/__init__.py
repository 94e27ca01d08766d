"""What drives the rows: the durable engine and the child processes. Knows no DICOM object and no model."""
