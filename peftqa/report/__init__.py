"""The report: what the numbers say in words, tables and drawings, as one HTML file and as Markdown."""
