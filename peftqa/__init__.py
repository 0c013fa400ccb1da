"""Prompt tuning against prefix tuning on PubMedQA: the library that the stages share.

Read it in the order in which data pass through it:

    errors settings params                  what may stand in params.yaml, and how it is refused
    records prompts                         PubMedQA's records, cleaned and split; the token ids of a question
    checkpoint backbone adapters kv_prefix  the frozen model, checked and loaded, and what is trained on it
    training trainer task                   an adapter is trained, and says in a file how it must be asked
    scoring                                 a question gets a probability for each label
    predictions metrics curves baselines    tables of answers, and what they are worth
    significance bootstrap power flags comparison   whether a difference is more than chance, and what to beware of
    palette report/                         the report, and an adapter's model card
    ask/                                    a trained adapter answers: `peftqa ask`, and the page `peftqa app`
    fast/                                   the same model computed faster on a CPU, where `model.fast` is on
    fetch/                                  downloads and digests
"""
