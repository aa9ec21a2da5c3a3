"""What `jaxcam.evaluate` is made of: reading and decoding a data set, the protocol, the program, the table."""
