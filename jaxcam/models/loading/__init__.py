"""Loading: where weights come from, and whose checkpoint it is.

Files, folders and Hugging Face repos -> tensors by torchvision's keys (`checkpoint`, `hub`; `torch_file` and `pickled`
for what torch wrote, of which nothing is ever run; `orbax_folder` and `flax_names` for what Orbax wrote of a Flax
network), preprocessing and class names of a timm config.json (`timm_config`), and the architecture that most tensors
fit (`recognise`).
"""
