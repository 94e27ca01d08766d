"""What can go wrong in storage. Knows no DICOM and no database driver.

StorageError
├── SchemaMismatch      the database was written by another version
├── OutOfSpace          the spool can't be written: full or failing disk
├── DatabaseUnavailable the database can't be reached or is locked
├── UnknownStudy
├── UnknownJob
└── AuditChainBroken    the audit trail was altered
"""


class StorageError(Exception):
    """Root of everything that `storage` raises on purpose."""


class SchemaMismatch(StorageError):
    """The database carries another schema version than this program."""

    def __init__(self, found: int, expected: int) -> None:
        super().__init__(f"the database has schema version {found}, this camnode needs {expected}")
        self.found = found
        self.expected = expected


class OutOfSpace(StorageError):
    """A file could not be made durable."""

    def __init__(self, reason: str) -> None:
        super().__init__(f"the spool can't be written: {reason}")
        self.reason = reason


class DatabaseUnavailable(StorageError):
    """The database can't be reached."""


class UnknownStudy(StorageError):
    """No row for this study."""

    def __init__(self, study_uid: str) -> None:
        super().__init__(f"no study {study_uid} is stored here")
        self.study_uid = study_uid


class UnknownJob(StorageError):
    """No row for this job."""

    def __init__(self, job_id: str) -> None:
        super().__init__(f"no job {job_id}")
        self.job_id = job_id


class AuditChainBroken(StorageError):
    """The audit trail does not verify."""

    def __init__(self, seq: int, reason: str) -> None:
        super().__init__(f"audit event {seq}: {reason}")
        self.seq = seq
        self.reason = reason
