"""What peftqa/__main__.py does with its options: answer one question, or a table of them, or serve the page."""

import sys
from argparse import Namespace
from pathlib import Path

from peftqa.ask import table
from peftqa.ask.answer import Answerer, find_adapter
from peftqa.data.files import read_table
from peftqa.data.text import MAX_CHARACTERS, decode, plain_text
from peftqa.errors import UserError, one_line
from peftqa.model.task import read_task


def answer_one(options: Namespace) -> None:
    folder = find_adapter(options.adapter)
    question, abstract = read_texts(options)
    plain_text("question", question), plain_text("abstract", abstract)  # refused before a model is loaded
    model = Answerer(folder, options.base, options.untrained, options.coverage)
    prompt = model.encode(question, abstract)
    (answer,) = model.answer([prompt])
    print(f"answer         {answer.label}")
    print(f"probabilities  {', '.join(f'{label} {value:.6f}' for label, value in answer.probabilities.items())}")
    print(f"sure enough    {model.why_sure(prompt, answer)}")
    print(f"cut            {model.what_was_cut(prompt)}")
    print(f"model          {model.name}")


def read_texts(options: Namespace) -> tuple[str, str]:
    """Question and abstract: what is not an argument comes from standard input."""
    if options.abstract is not None:
        return options.question, options.abstract
    if sys.stdin.isatty():
        print("Type or paste the text, then press Ctrl-D on a new line:", file=sys.stderr)
    text = decode(sys.stdin.buffer.read(8 * MAX_CHARACTERS), "standard input")
    return text.lstrip().partition("\n")[::2] if options.question is None else (options.question, text)


def answer_table(options: Namespace) -> None:
    folder = find_adapter(options.adapter)
    table.check_target(options.out)
    added = table.added_columns(read_task(folder).labels)
    source = "/dev/stdin" if options.csv == "-" else options.csv
    columns, rows, questions = table.read_questions(Path(source), added)
    model = Answerer(folder, options.base, options.untrained, options.coverage)
    answers = table.answer_rows(model, questions)
    answered = [[*row, *answer] for row, answer in zip(rows, answers, strict=True)]
    table.write_rows(options.out, [[*columns, *added], *answered])
    failed = sum(bool(answer[-1]) for answer in answers)
    counts = f"rows {len(rows)}, answered {len(rows) - failed}, not answered {failed}"
    print(f"{one_line(options.out)}: {counts}{' (the column error says why)' if failed else ''}")


def serve_page(options: Namespace) -> None:
    try:
        from peftqa.ask.page import bind, make_app, serve
    except ModuleNotFoundError as error:
        raise UserError(f"the page needs Flask, and {error.name} is not installed: pip install flask") from None
    questions = options.questions and read_table(options.questions)
    names = ["base"]  # the frozen model's; every card has a different name
    for given in options.adapters:
        name = one_line(Path(given).resolve().name)
        names.append(f"{name} ({one_line(given)})" if name in names else name)
    folders = list(map(find_adapter, options.adapters))
    with bind(options.port) as bound:
        print("Loading the models ...", flush=True)
        models = [Answerer(folders[0], untrained=True), *map(Answerer, folders)]
        print(f"http://127.0.0.1:{bound.getsockname()[1]}    (for this machine alone; Ctrl-C ends it)", flush=True)
        serve(make_app(dict(zip(names, models, strict=True)), questions), bound)
