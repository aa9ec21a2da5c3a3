"""The parts of `jaxcam.verify`: what is verified, the reference values, the equations, the figures and the words."""
