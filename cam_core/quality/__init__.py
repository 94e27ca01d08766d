"""Measures that say how far a saliency map may be trusted; they take arrays and a scoring function, and no model."""
