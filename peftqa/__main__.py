"""Ask trained adapters: peftqa ask --adapter FOLDER QUESTION ABSTRACT, or a page, peftqa app FOLDER... (docs/ask.md)"""

from peftqa import program

AGAIN = "interrupted; type the same command to begin again."
if __name__ == "__main__":
    program.start(AGAIN)  # before the imports, which take time

import argparse
import sys
from pathlib import Path

from peftqa.ask.answer import COVERAGE, MAX_CHARACTERS, Answer, Answerer, Prompt, find_adapter, plain_text
from peftqa.errors import UserError

DESCRIPTION = """\
Answer a question about an abstract with a trained adapter: the label, the probability of each label, whether that is
sure enough to do without a person, what did not fit into the model's input, and what the adapter was trained on."""
EXAMPLES = """\
examples:
  peftqa ask --adapter FOLDER "Does aspirin reduce pain?" "We gave aspirin or placebo to 120 patients. Pain was ..."
  peftqa ask --adapter FOLDER "Does aspirin reduce pain?" < abstract.txt
  peftqa ask --adapter FOLDER --file both.txt          (the question is its first line)
  peftqa ask --adapter FOLDER --csv questions.csv --out answers.csv

The answers are a model's. Base no decision about a patient on them."""


def main() -> None:
    program.run(run_command, AGAIN)


def run_command() -> None:
    options = parse_arguments()
    options.run(options)


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="peftqa", description=__doc__)
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    page = commands.add_parser("app", help="a page on this machine that asks several adapters side by side")
    page.add_argument("adapters", nargs="+", metavar="FOLDER", help="of an adapter; the page shows its name")
    page.add_argument("--questions", type=Path, metavar="CSV", help="test questions to choose from (data/split/...)")
    page.add_argument("--port", type=int, default=7860, help="default: %(default)s; 0 takes a free one")
    page.set_defaults(run=serve_app)
    layout = argparse.RawDescriptionHelpFormatter
    ask = commands.add_parser(
        "ask",
        help="answer one question, or those of a CSV file",
        description=DESCRIPTION,
        epilog=EXAMPLES,
        formatter_class=layout,
    )
    ask.add_argument("question", nargs="?", help="one that yes, no or maybe answers")
    ask.add_argument("abstract", nargs="?", help="that the answer is to come from (default: standard input)")
    ask.add_argument("--adapter", required=True, help="its folder, or OWNER/NAME[@COMMIT] on the Hugging Face Hub")
    ask.add_argument("--file", help="with the question as its first line and the abstract below; - for standard input")
    ask.add_argument(
        "--csv", metavar="IN", help="with columns question and abstract (or context); - for standard input"
    )
    ask.add_argument(
        "--out", type=Path, help="a new file: the rows of IN, each with its answer or with the reason for none"
    )
    ask.add_argument(
        "--coverage",
        type=float,
        default=COVERAGE,
        help="share of answers to take as sure, judged by its answers on validation (default: %(default)s)",
    )
    ask.add_argument("--untrained", action="store_true", help="leave the adapter out: what the frozen model says")
    ask.add_argument("--base", metavar="FOLDER", help="the frozen model (default: beside the adapter, or the Hub)")
    ask.add_argument("--dtype", choices=["auto", "float32", "bfloat16"], help="default: as the adapter was trained")
    ask.set_defaults(run=ask_one)
    options = parser.parse_args()
    if options.run is ask_one:
        check_ask(options, ask)
    return options


def check_ask(options: argparse.Namespace, command: argparse.ArgumentParser) -> None:
    """End the program if options of `ask` do not go together."""
    if (options.csv is None) != (options.out is None):
        command.error("--csv and --out go together")
    if not 0 < options.coverage <= 1:
        command.error(f"--coverage is a share above 0 and at most 1, not {options.coverage:g}")
    if sum(given is not None for given in (options.question, options.file, options.csv)) > 1:
        command.error("give only one of these: a question, --file, --csv")
    if options.csv is not None:
        options.run = ask_csv


def answerer(folder: Path, options: argparse.Namespace) -> Answerer:
    return Answerer(folder, options.base, options.untrained, options.dtype, options.coverage)


def ask_one(options: argparse.Namespace) -> None:
    folder = find_adapter(options.adapter)
    question, abstract = read_texts(options)
    for name, text in (("question", question), ("abstract", abstract)):
        plain_text(name, text)  # refused before a model is loaded
    model = answerer(folder, options)
    prompt = model.encode(question, abstract)
    (answer,) = model.answer([prompt])
    print(f"answer         {answer.label}")
    print(f"probabilities  {', '.join(f'{label} {value:.6f}' for label, value in answer.probabilities.items())}")
    print(f"sure enough    {in_words(answer, prompt, model.threshold, options.coverage)}")
    print(f"cut            {cut_in_words(prompt, model)}")
    print(f"model          {model.name}")


def read_texts(options: argparse.Namespace) -> tuple[str, str]:
    """Question and abstract, from where the options say."""
    if options.abstract is not None:
        return options.question, options.abstract
    if options.question is not None:
        return options.question, read_text("-")
    question, _, abstract = read_text(options.file or "-").lstrip().partition("\n")
    return question, abstract


def read_text(name: str) -> str:
    """The text in a file, or for - that on standard input."""
    from peftqa.ask.table import decode, read_file

    limit = 8 * MAX_CHARACTERS  # bytes
    if name != "-":
        return decode(read_file(Path(name), limit), name)
    if sys.stdin.isatty():
        print("Type or paste it, then press Ctrl-D on a line of its own:", file=sys.stderr)
    return decode(sys.stdin.buffer.read(limit), "standard input")


def in_words(answer: Answer, prompt: Prompt, threshold: float | None, coverage: float) -> str:
    """Whether the answer is sure enough, and by what it is judged."""
    if threshold is None:
        return "not known: an answer is judged by an adapter's answers on validation, and the frozen model has none"
    if prompt.unlike:
        return f"no, ask a person: it is unlike all training questions ({prompt.unlike})"
    if coverage == 1:
        return "yes: --coverage 1 leaves no question to a person"
    return (
        f"{'yes' if answer.sure else 'no, ask a person'}: its confidence is {answer.confidence:.3f}, and the surest "
        f"{100 * coverage:g}% of the adapter's answers on validation had {threshold:.3f} or more"
    )


def cut_in_words(prompt: Prompt, model: Answerer) -> str:
    """What the model could not read."""
    if not prompt.cut:
        return f"nothing; all {len(prompt.ids)} tokens were read"
    end = "first" if model.task.template.truncation_side == "left" else "last"
    text = model.text(prompt.cut)
    shown = text if len(text) <= 80 else f"{text[:38]} ... {text[-38:]}"
    return f"the {end} {len(prompt.cut)} tokens of the abstract, to fit into {len(prompt.ids)}: {shown}"


def ask_csv(options: argparse.Namespace) -> None:
    from peftqa.ask import table as tables
    from peftqa.model.task import read_task

    folder = find_adapter(options.adapter)
    tables.check_target(options.out)
    added = tables.added_columns(read_task(folder).labels)
    table = tables.read_table(Path("/dev/stdin" if options.csv == "-" else options.csv), added)
    answers = tables.answer_rows(answerer(folder, options), table)
    rows = [[*row, *answer] for row, answer in zip(table.rows, answers, strict=True)]
    tables.write_rows(options.out, [[*table.columns, *added], *rows])
    failed = sum(bool(answer[-1]) for answer in answers)
    print(f"{len(rows)} rows in {options.out}: {len(rows) - failed} answered, {failed} not (see the column error)")


def serve_app(options: argparse.Namespace) -> None:
    try:
        from peftqa.ask.page import bind, make_app, serve
    except ModuleNotFoundError as error:
        raise UserError(f"the page needs Flask, and {error.name} is not installed: pip install flask") from None
    from peftqa.data.records import read_table

    questions = options.questions and read_table(options.questions)
    folders = {}
    for given in options.adapters:
        name = Path(given).resolve().name
        taken = name == "base" or [Path(other).resolve().name for other in options.adapters].count(name) > 1
        folders[f"{name} ({given})" if taken else name] = find_adapter(given)
    with bind(options.port) as bound:
        print("Loading the models ...", flush=True)
        answerers = {"base": Answerer(next(iter(folders.values())), untrained=True)}
        answerers |= {name: Answerer(folder) for name, folder in folders.items()}
        print(f"http://127.0.0.1:{bound.getsockname()[1]}    (for this machine alone; Ctrl-C ends it)", flush=True)
        serve(make_app(answerers, questions), bound)


if __name__ == "__main__":
    main()
