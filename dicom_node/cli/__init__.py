"""The command line `camnode`; every command reads the configuration, calls one room and prints what it says."""

from dicom_node.cli.application import main

__all__ = ["main"]
