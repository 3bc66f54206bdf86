"""The package's tests: `pytest --pyargs invokerpool`."""
