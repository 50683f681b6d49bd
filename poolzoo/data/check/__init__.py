"""What `poolzoo data check` finds in a data set: copies, leakage, unequal classes, unreadable and odd images."""
