"""The machine that tries to break oncehook; tests/faults/run is its door."""
