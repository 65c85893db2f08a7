"""Target attention during verification, one file for each host backend."""
