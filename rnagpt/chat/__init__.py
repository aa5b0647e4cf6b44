"""Chat about an RNA: reading it (fasta), one conversation (conversation), the terminal (terminal, command)."""
