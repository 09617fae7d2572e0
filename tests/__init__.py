"""The tests: the folders mirror `rdata/`; `contracts/` and `faults/` stand beside."""
