"""The rooms of `jaxcam.methods`: what a family of methods shares stands in one file."""
