"""Commands: `python -m jaxcam ...`, a module each: argument parsing and printing, nothing else."""

__all__: list[str] = []
