"""Bundled controls."""
