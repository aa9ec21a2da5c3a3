"""The rooms of `jaxcam.metrics`: one kind of metric a file."""
