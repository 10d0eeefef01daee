"""From a plan to stored measurements to scores and metrics."""
