"""What `benchmarks.export` compares: networks with JPEGs (`cases`), and everybody's way to their labels (`arms`)."""
