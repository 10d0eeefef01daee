"""Executors: where batches are measured."""
