"""Keys, pseudonyms and the vault: what keeps patients' identities out of everything else."""
