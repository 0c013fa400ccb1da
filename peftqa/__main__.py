"""Ask trained adapters: peftqa ask --adapter FOLDER QUESTION ABSTRACT, or a page, peftqa app FOLDER... (docs/use.md)"""

from peftqa import program

EXAMPLES = """\
It prints the answer, each label's probability, whether the answer is sure enough to do without a person, what of the
abstract did not fit, and what the adapter was trained on. The answers are a model's. Do not use them to decide
about a patient.

  peftqa ask --adapter FOLDER "Does aspirin reduce pain?" "We gave aspirin or placebo to 120 patients. Pain was ..."
  peftqa ask --adapter FOLDER "Does aspirin reduce pain?" < abstract.txt
  peftqa ask --adapter FOLDER < both.txt          (the question is its first line)
  peftqa ask --adapter FOLDER --csv questions.csv --out answers.csv"""


def main() -> None:
    program.run(command)


def command() -> None:
    # Nothing is imported before the program has started: it refuses files of the working folder that hide modules.
    options = parse_arguments()
    from peftqa.ask import commands  # which takes time to import

    getattr(commands, options.run)(options)


def parse_arguments():
    """The options of the command line, as an argparse.Namespace; `run` names the function of peftqa/ask/commands.py."""
    import argparse
    from pathlib import Path

    parser = argparse.ArgumentParser(prog="peftqa", description=__doc__)
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    page = commands.add_parser("app", help="a page on this machine that asks several adapters side by side")
    page.add_argument("adapters", nargs="+", metavar="FOLDER", help="an adapter's folder, whose name the page shows")
    page.add_argument("--questions", type=Path, metavar="CSV", help="questions to choose from (data/split/...)")
    page.add_argument("--port", type=int, default=7860, help="default: %(default)s; 0 takes a free one")
    page.set_defaults(run="serve_page")
    raw, what = argparse.RawDescriptionHelpFormatter, "answer one question, or those of a CSV file"
    ask = commands.add_parser("ask", help=what, epilog=EXAMPLES, formatter_class=raw)
    what = "one that yes, no or maybe answers (default: the first line of standard input)"
    ask.add_argument("question", nargs="?", help=what)
    ask.add_argument("abstract", nargs="?", help="the text that the answer comes from (default: standard input)")
    ask.add_argument("--adapter", required=True, help="its folder, or OWNER/NAME[@COMMIT] on the Hugging Face Hub")
    ask.add_argument(
        "--csv", metavar="IN", help="with columns question and abstract (or context); - for standard input"
    )
    ask.add_argument("--out", type=Path, help="a new file: each row of IN with its answer, or why it has none")
    share = "share of answers to take as sure, judged by the adapter's answers on validation (default: %(default)s)"
    ask.add_argument("--coverage", type=float, default=0.8, help=share)
    ask.add_argument("--untrained", action="store_true", help="ask the frozen model without the adapter")
    ask.add_argument("--base", metavar="FOLDER", help="the frozen model (default: beside the adapter, or the Hub)")
    options = parser.parse_args()
    if "run" not in options:
        if (options.csv is None) != (options.out is None):
            ask.error("--csv and --out go together")
        if not 0 < options.coverage <= 1:
            ask.error(f"--coverage is a share above 0 and at most 1, not {options.coverage:g}")
        if options.question is not None and options.csv is not None:
            ask.error("give either a question or --csv")
        options.run = "answer_one" if options.csv is None else "answer_table"
    return options


if __name__ == "__main__":
    main()
