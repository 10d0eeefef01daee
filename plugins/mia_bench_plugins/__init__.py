"""The bundled attacks, controls, datasets and targets: one module each, registered like anybody's plugin."""
