"""PubMedQA's records: read, checked, cleaned and split."""
