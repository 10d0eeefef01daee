"""What people and machines read: tables, listings, progress."""
