"""How generated scenes are laid out and painted; `jaxcam.scenes` is the way in."""
