"""Pictures as Pillow images: preprocessing, colours, text, panels, files. See `jaxcam.images` and `jaxcam.overlay`."""
