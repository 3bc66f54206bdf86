"""Examples: `python -m invokerpool.examples.recommend`, and so on."""
