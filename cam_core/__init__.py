"""Explanation of image classifiers with class activation maps; knows nothing of DICOM, networks or databases."""
