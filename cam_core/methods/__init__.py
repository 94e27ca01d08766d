"""CAM methods, one file each; every one is a pure function of captured evidence."""
