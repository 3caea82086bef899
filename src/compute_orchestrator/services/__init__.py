"""The decisions and the transactions. Services own commits and rollbacks; routes call them."""
