"""Images of a list of urls: fetched politely, remembered in a ledger, and frozen as a list of survivors."""
