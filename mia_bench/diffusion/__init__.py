"""Schedule algebra, per-sample noise, and the counting denoiser."""
