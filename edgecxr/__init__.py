"""EdgeCXR: chest X-ray ensembles in one verified file, screened where the X-ray is taken."""

__version__ = "0.1.0"
