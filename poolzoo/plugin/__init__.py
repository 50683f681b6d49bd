"""The plugin contract and the host: how plugins are found, loaded in isolation, and looked up by name."""
