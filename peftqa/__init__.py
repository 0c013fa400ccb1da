"""Prompt tuning against prefix tuning on PubMedQA: the library the stages share."""
