"""Run directory and bundle as formats on disk: the manifest, and a run read back."""
