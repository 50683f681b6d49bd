"""Lower precision: fp16 and int8 graphs, the layers that stay in float32, and which graph is exported."""
