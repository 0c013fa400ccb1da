"""Ask trained adapters: peftqa ask --adapter FOLDER QUESTION ABSTRACT, or a page, peftqa app FOLDER... (docs/ask.md)"""

import argparse
import sys
from pathlib import Path

from peftqa.ask.answer import (
    ADAPTER_FILES,
    COVERAGE,
    MAX_CHARACTERS,
    Answer,
    Answerer,
    Prompt,
    find_adapter,
    plain_text,
)
from peftqa.errors import UserError
from peftqa.fetch.digest import folder_digest

DESCRIPTION = """\
Answer a question about an abstract with a trained adapter: the label, the probability of each label, whether that is
sure enough to stand without a person, and what did not fit into the model's input."""
EXAMPLES = """\
examples:
  peftqa ask --adapter FOLDER "Does aspirin reduce pain?" "We gave aspirin or placebo to 120 patients. Pain was ..."
  peftqa ask --adapter FOLDER "Does aspirin reduce pain?" < abstract.txt
  peftqa ask --adapter FOLDER --file both.txt          (the question is its first line)
  peftqa ask --adapter FOLDER --csv questions.csv --out answers.csv

The answers are a model's. Base no decision about a patient on them."""


def main() -> None:
    options = parse_arguments()
    try:
        options.run(options)
    except UserError as error:
        sys.exit(f"error: {error}")
    except KeyboardInterrupt:
        if options.run is serve_app:
            return
        going_on = options.run is ask_csv
        sys.exit("interrupted" + ("; the same command goes on where this one stopped" if going_on else ""))


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="peftqa", description=__doc__)
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    page = commands.add_parser("app", help="a page on this machine that asks several adapters side by side")
    page.add_argument("adapters", nargs="+", metavar="FOLDER", help="of an adapter; its name is the one shown")
    page.add_argument("--questions", type=Path, metavar="CSV", help="test questions to choose from (data/split/...)")
    page.add_argument("--port", type=int, default=7860, help="default: %(default)s; 0 takes a free one")
    page.set_defaults(run=serve_app)
    command = commands.add_parser(
        "ask",
        help="answer one question, or those of a CSV file",
        description=DESCRIPTION,
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    command.add_argument("question", nargs="?", help="one that yes, no or maybe answers")
    command.add_argument("abstract", nargs="?", help="that the answer is to come from (default: standard input)")
    command.add_argument("--adapter", required=True, help="its folder, or OWNER/NAME[@COMMIT] on the Hugging Face Hub")
    command.add_argument("--file", help="with the question as its first line and the abstract below; - for stdin")
    command.add_argument("--csv", type=Path, metavar="IN", help="with columns question and abstract (or context)")
    command.add_argument("--out", type=Path, help="where the rows of IN go, each with its answer; goes on if killed")
    command.add_argument(
        "--coverage",
        type=float,
        default=COVERAGE,
        help="share of answers to take as sure, judged by its answers on validation (default: %(default)s)",
    )
    command.add_argument("--untrained", action="store_true", help="leave the adapter out: what the frozen model says")
    command.add_argument("--base", metavar="FOLDER", help="the frozen model (default: beside the adapter, or the Hub)")
    command.add_argument("--dtype", choices=["auto", "float32", "bfloat16"], help="default: as the adapter was trained")
    command.set_defaults(run=ask_one)
    options = parser.parse_args()
    if options.run is ask_one:
        check_ask(options, command)
    return options


def check_ask(options: argparse.Namespace, command: argparse.ArgumentParser) -> None:
    """End the program where options of `ask` do not go together."""
    if (options.csv is None) != (options.out is None):
        command.error("--csv and --out go together")
    if not 0 < options.coverage <= 1:
        command.error(f"--coverage is a share above 0 and at most 1, not {options.coverage:g}")
    given = [options.question is not None, options.file is not None, options.csv is not None]
    if sum(given) > 1:
        command.error("give a question, --file or --csv, one of them")
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
    if answer.sure is not None:
        print(f"sure enough    {in_words(answer, model.threshold, options.coverage)}")
    print(f"cut            {cut_in_words(prompt, model)}")


def read_texts(options: argparse.Namespace) -> tuple[str, str]:
    """Question and abstract, from where the options say."""
    if options.abstract is not None:
        return options.question, options.abstract
    if options.question is not None:
        return options.question, read_text("-")
    question, _, abstract = read_text(options.file or "-").lstrip().partition("\n")
    return question, abstract


def read_text(name: str) -> str:
    """A file's text, or for - that of standard input; no more of it than is read anyway, and a little."""
    try:
        if name == "-":
            if sys.stdin.isatty():
                print("Type or paste it, then press Ctrl-D on a line of its own:", file=sys.stderr)
            return sys.stdin.buffer.read(8 * MAX_CHARACTERS).decode("utf-8", "surrogateescape")
        with Path(name).open("rb") as file:
            return file.read(8 * MAX_CHARACTERS).decode("utf-8", "surrogateescape")
    except OSError as error:
        raise UserError(f"{name} cannot be read: {error.strerror}.") from None


def in_words(answer: Answer, threshold: float, coverage: float) -> str:
    """Whether the answer is sure enough, and by what it is judged."""
    if coverage == 1:
        return "yes, since --coverage 1 leaves none to a person"
    verdict = "yes" if answer.sure else "no, ask a person"
    return (
        f"{verdict}: its confidence is {answer.confidence:.3f}, and the surest {100 * coverage:g}% of the adapter's "
        f"answers on validation had {threshold:.3f} or more"
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
    from peftqa.ask.csv_file import answer_csv

    folder = find_adapter(options.adapter)
    settings = {
        "adapter": folder_digest(folder, ADAPTER_FILES),
        **{name: getattr(options, name) for name in ("untrained", "coverage", "dtype")},
    }
    summary = answer_csv(options.csv, options.out, lambda: answerer(folder, options), settings)
    print(f"{summary.answered} rows answered: {options.out}")
    if summary.left_out_count:
        more = ", ..." if summary.left_out_count > len(summary.left_out) else ""
        shown = "; ".join(summary.left_out) + more
        print(f"{summary.left_out_count} rows left out, see {summary.left_out_path}: {shown}")


def serve_app(options: argparse.Namespace) -> None:
    try:
        from peftqa.ask.page import bind, make_app, serve
    except ModuleNotFoundError:
        raise UserError("the page needs Flask, which is not here; install it: pip install flask") from None
    from peftqa.data.records import read_table

    questions = options.questions and read_table(options.questions)
    names = [Path(name).resolve().name for name in options.adapters]
    names = names if len(set(names)) == len(names) else options.adapters
    folders = {name: find_adapter(given) for name, given in zip(names, options.adapters, strict=True)}
    with bind(options.port) as bound:
        print("Loading the models ...", flush=True)
        answerers = {"base": Answerer(next(iter(folders.values())), untrained=True)}
        answerers |= {name: Answerer(folder) for name, folder in folders.items()}
        print(f"http://127.0.0.1:{bound.getsockname()[1]}    (for this machine alone; Ctrl-C ends it)", flush=True)
        serve(make_app(answerers, questions), bound)


if __name__ == "__main__":
    main()
