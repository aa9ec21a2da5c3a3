"""The commands of `python -m jaxcam`, a module each."""
