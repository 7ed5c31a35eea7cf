"""The browser's side of a work package: what it shows, what is drawn on it, and how it is handed in. No ledger here."""
