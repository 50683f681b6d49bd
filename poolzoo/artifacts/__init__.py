"""The formats of run directories and bundles: manifest, schemas, samples, and a run loaded again."""
