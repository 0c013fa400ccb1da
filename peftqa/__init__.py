"""Prompt tuning against prefix tuning on PubMedQA: the library that the stages share.

Read it in the order in which data pass through it:

    errors settings params                  what may stand in params.yaml, and how it is refused
    records prompts                         PubMedQA's records, cleaned and split; the token ids of a question
    checkpoint backbone adapters kv_prefix  the frozen model, checked and loaded, and what is trained on it
    training trainer encoder_outputs scoring    an adapter is trained; a question gets a probability for each label
    predictions metrics curves baselines    tables of answers, and what they are worth
    significance bootstrap power comparison     whether a difference is more than chance
    palette report/                         the report, and an adapter's model card
    task ask/                               an adapter says how it is asked, and answers: `peftqa ask`, `peftqa app`
    fast/                                   the same model computed faster on a CPU, where `model.fast` is on
    fetch/                                  downloads and digests
"""
