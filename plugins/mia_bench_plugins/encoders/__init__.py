"""Encoders of images that the targets do not own: for comparing pictures, and pictures with captions."""
