"""What reading photographs costs."""
