"""What survives: files, SQLite, the search index and the ledger.

Knows no model, no network and no process.
"""
