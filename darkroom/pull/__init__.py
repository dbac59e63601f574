"""Downloads of models: from a hub or an address to the folder where they are looked for. Imports nothing heavy."""
