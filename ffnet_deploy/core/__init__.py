"""What every room shares: errors, files, optional packages, contract, precision record, label sets."""
