"""Chat about an RNA: one conversation, behind a terminal, a web page and a batch file."""
