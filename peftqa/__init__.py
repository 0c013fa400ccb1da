"""Prompt tuning against prefix tuning on PubMedQA: the library that the stages share.

Its folders are in the order in which data pass through them:

    config/       what params.yaml may contain, and how it is refused
    data/         PubMedQA's records: read, checked, cleaned, split
    fetch/        downloads and digests
    model/        the prompt, the frozen model, the adapters, the probability of each label; fast/ computes it faster
    training/     one adapter is trained
    evaluation/   tables of answers, and what they are worth
    statistics/   whether a difference is more than chance, and what to beware of
    report/       the report, and an adapter's model card
    ask/          a trained adapter answers: `peftqa ask`, and the page `peftqa app`

kv_prefix.py is prefix tuning for T5, as a method of PEFT. program.py says how every program starts and ends.
"""
