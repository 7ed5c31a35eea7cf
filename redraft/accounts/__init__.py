"""Who may do what: accounts, passwords, sign-ins, sessions.

The ledger holds accounts under random ids and what they may do; logins, password hashes and sessions lie in the desk
database (redraft/desk), which can forget.
"""

from redraft.accounts.directory import ROLES, Account
from redraft.accounts.sign_in import Identity, authenticate

__all__ = ["ROLES", "Account", "Identity", "authenticate"]
