"""Loading: where weights come from (files, folders, Hugging Face repos), and whose checkpoint it is."""
