"""Which of several poolings is better: trained from the same seeds, tested on the same images, told from luck."""
