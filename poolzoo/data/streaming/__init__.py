"""Images that are decoded while a network trains: where they come from, what is kept, and who reads ahead."""
