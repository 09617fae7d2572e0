"""Which worker may run which task, and when? Pure decisions, no I/O, no clock."""
