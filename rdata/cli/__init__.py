"""What people start: the `rdata` command."""
