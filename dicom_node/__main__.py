"""``python -m dicom_node``: the command line; holds nothing else."""

from dicom_node.cli import main

main()
