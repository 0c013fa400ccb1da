"""The answers of a variant's runs, as the stages after `predict` read them."""

from peftqa.config.params import Params
from peftqa.errors import UserError
from peftqa.evaluation.predictions import Replicates, read_predictions, replicates, same_test_questions
from stages import runs


def read_replicates(name: str, split: str, params: Params) -> Replicates:
    """A variant's predictions on "val" or "test", by replicate.

    Raises UserError if a file is missing or damaged, or if the runs answer different questions.
    """
    table = read_predictions(runs.run_paths(runs.PREDICTIONS, [name], params, ".csv"), params.data.labels)
    try:
        return replicates(table, split, split == "test" and same_test_questions(params.split.protocol))
    except UserError as error:
        raise UserError(f"{runs.PREDICTIONS / name}: {error}") from None
