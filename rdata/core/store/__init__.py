"""Where do large objects live? Shared-memory segments and the account of them."""
