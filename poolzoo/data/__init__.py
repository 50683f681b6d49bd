"""From image files and arrays to batches on the device."""
