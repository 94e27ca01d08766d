"""Results as DICOM objects, one file a kind; pure: no database, no network, no clock."""
