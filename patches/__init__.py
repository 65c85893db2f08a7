"""Changes of the host, one file each."""
