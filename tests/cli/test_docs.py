"""What README and docs show is run and compared; what they name exists; what exists is named.

In a ```console block a line `$ COMMAND` is run (`> ` continues it), and the lines below it are compared with what it
prints, times and the like made equal; a line `...` stands for any lines. `exit=N` behind `console` is the exit code of
the block's last command, the others must give 0; `norun` blocks need what a test cannot have. A block with `file=PATH`
(```sql file=…) is written to that file. The blocks of a page share one fresh project.

`python tests/cli/test_docs.py PAGE…` writes what the commands print now into the pages.
"""

from __future__ import annotations

import difflib
import os
import re
import shlex
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields
from functools import cache
from pathlib import Path

import click
import pytest

from dbops import errors
from dbops.cli.main import cli
from dbops.config import KEYS, LIBPQ_VARIABLES, Settings

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
PAGES = [ROOT / "README.md", *sorted(DOCS.glob("*.md"))]
SHOWN_PROJECT = "/home/ann/shop"
COMING = {"memory", "monitor"}
ROOMS = ("migrate", "policy", "backup", "hygiene")
COMMON = {"--url", "--env", "--config", "--no-embedded", "--json", "--verbose", "-v", "--quiet", "-q", "--help", "-h"}
EMBEDDED = "using the embedded PostgreSQL"
_FENCE = re.compile(r"^```([^\n]*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


@dataclass
class Command:
    """A command of a console block, and what the page shows of its output."""

    text: str
    shown: list[str]
    exit: int = 0


@dataclass(frozen=True)
class Block:
    info: str
    body: str
    line: int
    begin: int

    @property
    def kind(self) -> str:
        return self.info.split(" ", 1)[0]

    @property
    def file(self) -> str:
        return "".join(word[5:] for word in self.info.split() if word.startswith("file="))

    @property
    def runs(self) -> bool:
        return self.kind == "console" and "norun" not in self.info.split()

    @property
    def commands(self) -> list[Command]:
        found: list[Command] = []
        for line in self.body.splitlines():
            if line.startswith("$ "):
                found.append(Command(line[2:], []))
            elif line.startswith("> ") and found and not found[-1].shown:
                found[-1].text += "\n" + line[2:]
            else:
                found[-1].shown.append(line)
        if found:
            found[-1].exit = next((int(word[5:]) for word in self.info.split() if word.startswith("exit=")), 0)
        for command in found:
            while command.shown and not command.shown[-1]:
                command.shown.pop()
        return found


def blocks(text: str) -> list[Block]:
    return [Block(m[1].strip(), m[2], text.count("\n", 0, m.start()) + 1, m.start(2)) for m in _FENCE.finditer(text)]


# --- the commands of a page are run --------------------------------------------------------------


def environment(home: Path) -> dict[str, str]:
    """That of somebody who has dbops installed, and nothing set."""
    path = os.pathsep.join([str(Path(sys.executable).parent), "/usr/local/bin", "/usr/bin", "/bin"])
    runtime = home / "runtime"
    runtime.mkdir(mode=0o700, exist_ok=True)
    places = {"PATH": path, "HOME": str(home), "XDG_RUNTIME_DIR": str(runtime), "TMPDIR": tempfile.gettempdir()}
    return {**places, "LANG": "C.UTF-8", "TERM": "dumb"}


def made(text: str) -> dict[str, str]:
    """The files that `migrate new` wrote in a page: names by their versions, which are the time."""
    return dict(re.findall(r"^wrote migrations/sql/(\d{8}_\d{6})_(\w+)\.sql$", text, re.MULTILINE))


def run_page(page: Sequence[Block]) -> list[tuple[int, list[str]]]:
    """Exit code and output (stdout and stderr as they come) of each command, in a project that is gone afterwards."""
    mark, script = "@@ end of command", ["exec 2>&1"]
    versions = made("\n".join(block.body for block in page))
    for block in page:
        if block.file:
            script.append(f"mkdir -p ./{os.path.dirname(block.file)}")
            script.append(f"cat > {block.file} <<'END OF FILE'\n{block.body}END OF FILE")
        if block.runs:
            for command in block.commands:
                text = _UNDO.sub(lambda _: _LAST_RUN, command.text)
                for version, name in versions.items():
                    text = text.replace(version, f"$(basename migrations/sql/*_{name}.sql _{name}.sql)")
                script.append(f"{text}\nprintf '\\n{mark} %d\\n' $?")
    home = Path(tempfile.mkdtemp(prefix="dbops-docs-"))
    project = home / "shop"
    project.mkdir()
    try:
        done = subprocess.run(
            ["bash", "-c", "\n".join(script)], cwd=project, env=environment(home), stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=180, check=False,
        )  # fmt: skip
    finally:
        for data in home.glob("**/.dbops/pg*/postmaster.pid"):
            folder = data.parents[2]
            subprocess.run(["dbops", "db", "stop"], cwd=folder, env=environment(home), capture_output=True, check=False)
        shutil.rmtree(home, ignore_errors=True)
    *outputs, _ = re.split(rf"\n{mark} (\d+)\n", done.stdout.replace(str(project), SHOWN_PROJECT))
    return [(int(code), text.splitlines()) for text, code in zip(outputs[::2], outputs[1::2], strict=True)]


# a page that undoes a restore does not know which run it was
_UNDO = re.compile(r"(?<=--undo )\d{8}_\d{6}_[0-9a-f]{8}")
_LAST_RUN = (
    "$(dbops db psql -- -Atqc 'select run from dbops.restore_runs order by started_at desc limit 1' 2>/dev/null)"
)

_EQUAL = [
    (re.compile(r"\bbackup_\d{8}_\d{6}_"), "backup_TIME_"),
    (re.compile(r"\b\d{8}_\d{6}_[0-9a-f]{8}\b"), "RUN"),
    (re.compile(r"\b\d+\.\d h old"), "AGE old"),
    (re.compile(r"\buntil \d{4}-\d\d-\d\d\b"), "until DATE"),
    (re.compile(r'("(?:age_s|\w+_bytes|bytes)": )\d+'), r"\1NUMBER"),
    (re.compile(r"\b\d{4}-\d\d-\d\d[T ]\d\d:\d\d(:\d\d(\.\d+)?)?(Z|\+\d\d)?"), "TIME"),
    (re.compile(r"\b(20(?:2[6-9]|[3-9]\d))\d{4}_\d{6}"), "VERSION"),
    (re.compile(r"\b[0-9a-f]{64}\b"), "HASH"),
    (re.compile(r"\b[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}\b"), "UUID"),
    (re.compile(r"\b\d+(\.\d+)? (ms|s)\b"), "DURATION"),
    (re.compile(r"\b\d+(\.\d+)? (B|kB|MB)\b"), "SIZE"),
    (re.compile(r'(_ms": )\d+(\.\d+)?'), r"\1DURATION"),
    (re.compile(r"(\bby \S+ from )\S+"), r"\1HOST"),
    (re.compile(r'((?:applied|run)_from": ")[^"]+'), r"\1HOST"),
    (re.compile(r"\bprocess \d+"), "process PID"),
    (re.compile(r"\bcluster \d+"), "cluster NUMBER"),
    (re.compile(r"\((embedded|installed)\)"), "(embedded)"),
    # how many statements a large plan has is the planner's affair
    (re.compile(r"\b\d\d+ statements\b"), "N statements"),
    # how many attacks there are, and on how many rows, is the attack's affair: what is found is not
    (re.compile(r"\b[\d,]+ attacks?\b"), "N attacks"),
    (re.compile(r"\b\d+ mutants: \d+ caught"), "N mutants: N caught"),
    (re.compile(r"\b\d+ rows? read\b"), "N rows read"),
    # columns are as wide as what stands in them
    (re.compile(r"(?<=\S) {2,}"), "  "),
]


def equal(line: str) -> str:
    """A line without what differs from run to run."""
    for pattern, word in _EQUAL:
        line = pattern.sub(word, line)
    return line.rstrip()


def matches(shown: Sequence[str], real: Sequence[str]) -> bool:
    """Whether a page shows this output; `...` stands for any lines."""
    parts = [r"(?:.*\n)*?" if line == "..." else re.escape(equal(line)) + r"\n" for line in shown]
    return re.fullmatch("".join(parts), "".join(f"{equal(line)}\n" for line in real)) is not None


def relevant(command: Command, real: Sequence[str]) -> list[str]:
    """The output as a page shows it: that the embedded server is used needs to be shown only once."""
    lines = "\n".join(real).rstrip().splitlines()
    if any(line.startswith(EMBEDDED) for line in command.shown):
        return lines
    return [line for line in lines if not line.startswith(EMBEDDED)]


def results(page: Path) -> Iterator[tuple[Block, Command, int, list[str]]]:
    """Each command of a page that is run, with what came of it."""
    found = blocks(page.read_text(encoding="utf-8"))
    pairs = [(block, command) for block in found if block.runs for command in block.commands]
    if pairs:
        for (block, command), (code, real) in zip(pairs, run_page(found), strict=True):
            yield block, command, code, relevant(command, real)


@pytest.mark.parametrize("page", [p for p in PAGES if "\n```console" in p.read_text("utf-8")], ids=lambda p: p.name)
def test_commands_print_what_the_page_shows(page: Path) -> None:
    wrong = []
    for block, command, code, real in results(page):
        place = f"{page.name}:{block.line}: $ {command.text}"
        if code != command.exit:
            wrong.append(f"{place}\nexit {code}, not {command.exit}:\n" + "\n".join(real))
        elif not matches(command.shown, real):
            shown, printed = [*map(equal, command.shown)], [*map(equal, real)]
            diff = difflib.unified_diff(shown, printed, "shown", "printed", lineterm="", n=1)
            wrong.append(f"{place}\n" + "\n".join(diff))
    assert not wrong, "\n\n".join(wrong)


def rewrite(page: Path) -> None:
    """Write what the commands print now into the page, where it differs."""
    text, shift = page.read_text(encoding="utf-8"), 0
    shown, new = {name: version for version, name in made(text).items()}, {}
    by_block: dict[int, tuple[Block, list[tuple[Command, list[str]]]]] = {}
    for block, command, _, real in results(page):
        by_block.setdefault(block.begin, (block, []))[1].append((command, real))
        new |= made("\n".join(real))
    for begin, (block, done) in by_block.items():
        lines = []
        for command, real in done:
            output = command.shown if matches(command.shown, real) else real
            lines += ["$ " + command.text.replace("\n", "\n> "), *output]
        body = "".join(f"{line}\n" for line in lines)
        at = begin + shift
        text = text[:at] + body + text[at + len(block.body) :]
        shift += len(body) - len(block.body)
    for version, name in new.items():
        text = text.replace(version, shown.get(name, version))
    page.write_text(undone(text), encoding="utf-8")


def undone(text: str) -> str:
    """The text in which each `--undo` names the run that the page shows before it."""
    parts = re.split(r"^(run \S+)(?=; to take it back)", text, flags=re.MULTILINE)
    for place in range(1, len(parts), 2):
        parts[place + 1] = _UNDO.sub(parts[place].removeprefix("run "), parts[place + 1], count=2)
    return "".join(parts)


# --- what is named exists ------------------------------------------------------------------------


@cache
def verbs() -> dict[str, click.Command]:
    """Every command that does something, by its words (`migrate up`)."""
    return dict(_leaves(cli, ""))


def _leaves(command: click.Command, path: str) -> Iterator[tuple[str, click.Command]]:
    if not isinstance(command, click.Group):
        yield path, command
        return
    with click.Context(command) as ctx:
        for name in command.list_commands(ctx):
            member = command.get_command(ctx, name)
            assert member is not None
            yield from _leaves(member, f"{path} {name}".strip())


def shown_verbs() -> list[str]:
    """Those that people call: `backup ping` is for schedules."""
    return [verb for verb, command in verbs().items() if not command.hidden]


def options(command: click.Command) -> set[str]:
    return {name for p in command.params if isinstance(p, click.Option) for name in (*p.opts, *p.secondary_opts)}


def find(words: Sequence[str]) -> str | None:
    """The verb that a command line begins with."""
    return next((" ".join(words[:n]) for n in (2, 1) if " ".join(words[:n]) in verbs()), None)


def problem(line: str, *, remark: bool = False) -> str:
    """Why a command line would not be understood. After `remark`, words may stand behind it."""
    cut = re.split(r"\s[|<>&;]", line.split("  ")[0] if remark else line)[0]
    words = shlex.split(cut, comments=True)[1:]
    verb = find(words)
    if verb is None:
        return "" if words[:1] and words[0] in {*COMING, "--version", "--help"} else f"no such verb: {line}"
    command = verbs()[verb]
    try:
        with command.make_context(verb, words[len(verb.split()) :]):
            return ""
    except click.UsageError as error:
        return "" if remark and "unexpected extra" in error.format_message() else f"{line}: {error.format_message()}"


def command_lines(page: Path) -> Iterator[tuple[str, bool]]:
    """The dbops command lines in the blocks of a page; whether words of explanation may stand behind."""
    for block in blocks(page.read_text(encoding="utf-8")):
        if block.kind == "console":
            yield from ((c.text, False) for c in block.commands if c.text.startswith("dbops "))
        elif block.kind in ("", "sh", "yaml"):
            lines = (re.sub(r"^(- )?(run: )?", "", line.strip()) for line in block.body.splitlines())
            yield from ((line, True) for line in lines if line.startswith("dbops "))


@pytest.mark.quick
@pytest.mark.parametrize("page", PAGES, ids=lambda p: p.name)
def test_every_command_line_is_understood(page: Path) -> None:
    assert [found for line, remark in command_lines(page) if (found := problem(line, remark=remark))] == []


@pytest.mark.quick
@pytest.mark.parametrize("page", PAGES, ids=lambda p: p.name)
def test_every_verb_and_option_named_in_passing_exists(page: Path) -> None:
    text = _FENCE.sub("", page.read_text(encoding="utf-8"))
    for span in re.findall(r"`dbops ([a-z][^`]*)`", text):
        words = span.replace("|", " ").split()
        if words[0] in COMING:
            continue
        group = {verb.split()[0] for verb in verbs()}
        assert words[0] in group, f"`dbops {span}`"
        verb = find(words)
        assert verb or len(words) == 1 or words[1].isupper(), f"`dbops {span}`"
        known = options(verbs()[verb]) if verb else COMMON
        assert {w for w in words if w.startswith("--") and len(w) > 2} <= known, f"`dbops {span}`"


@pytest.mark.quick
def test_the_examples_in_help_texts_parse() -> None:
    def examples(command: click.Command) -> list[str]:
        return [line.strip() for line in (command.help or "").splitlines() if re.match(r"\s*dbops \w", line)]

    with click.Context(cli) as ctx:
        groups = [cli.get_command(ctx, name) for name in cli.list_commands(ctx)]
    found = [line for c in {cli, *groups, *verbs().values()} if c is not None for line in examples(c)]
    assert len(found) > 15
    assert [wrong for line in found if (wrong := problem(line, remark=True))] == []


@pytest.mark.quick
def test_every_link_leads_somewhere() -> None:
    for page in (*PAGES, ROOT / "CHANGELOG.md"):
        for target in re.findall(r"\]\(([^)\s]+)\)", _FENCE.sub("", page.read_text(encoding="utf-8"))):
            if "://" in target:
                continue
            name, _, anchor = target.partition("#")
            other = (page.parent / name) if name else page
            assert other.exists(), f"{page.name}: {target}"
            if anchor:
                assert anchor in anchors(other), f"{page.name}: {target}"


def anchors(page: Path) -> set[str]:
    """The anchors of a page's headings, as GitHub makes them."""
    headings = re.findall(r"^#+ (.*)$", _FENCE.sub("", page.read_text(encoding="utf-8")), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.quick
def test_every_test_that_is_named_exists() -> None:
    named = {m for page in PAGES for m in re.findall(r"\btests/\S+?\.py(?:::\w+)+", page.read_text(encoding="utf-8"))}
    assert named
    for name in named:
        path, *parts = name.split("::")
        assert re.search(rf"def {parts[-1]}\(", (ROOT / path).read_text(encoding="utf-8")), name


# --- what exists is named ------------------------------------------------------------------------


def rows(page: Path) -> dict[str, list[str]]:
    """The rows of a page's tables by the code in their first cell."""
    lines = re.findall(r"^\| `([^`]+)` *\|(.*)\|$", page.read_text(encoding="utf-8"), re.MULTILINE)
    return {name: [cell.strip() for cell in re.split(r"(?<!\\)\|", rest)] for name, rest in lines}


def sections(page: Path) -> dict[str, str]:
    """The text below each heading of a page."""
    parts = re.split(r"^#+ (.*)$", page.read_text(encoding="utf-8"), flags=re.MULTILINE)
    return dict(zip(parts[1::2], parts[2::2], strict=True))


@pytest.mark.quick
def test_every_verb_has_a_row_and_every_verb_of_a_room_a_section() -> None:
    described = {name.removeprefix("dbops ") for name in rows(ROOT / "README.md") if name.startswith("dbops ")}
    assert described - {name for name in described if name.split()[0] in COMING} == set(shown_verbs())
    for room in ROOMS:
        headings = {name for name in sections(DOCS / f"{room}.md") if name.startswith(f"dbops {room} ")}
        assert headings == {f"dbops {verb}" for verb in shown_verbs() if verb.startswith(f"{room} ")}


@pytest.mark.quick
@pytest.mark.parametrize("verb", [verb for verb in shown_verbs() if verb.split()[0] in ROOMS])
def test_every_option_is_described(verb: str) -> None:
    text = sections(DOCS / f"{verb.split()[0]}.md")[f"dbops {verb}"]
    assert {name for name in options(verbs()[verb]) - COMMON if not re.search(rf"{name}\b", text)} == set()


@pytest.mark.quick
def test_every_setting_is_described_with_its_default() -> None:
    page = DOCS / "settings.md"
    described, defaults = rows(page), {field.name: field.default for field in fields(Settings)}
    for key, convert in KEYS.items():
        cell = described[key][0]
        value = re.match(r"`(.*)`$", cell)
        if value is None:
            assert cell in ("none", "–")
            assert not defaults[key]
        else:
            assert convert(value[1]) == defaults[key], key
        assert described[key][1] == f"`DBOPS_{key.upper()}`"
    text = page.read_text(encoding="utf-8")
    others = {"DATABASE_URL", "DBOPS_ENV", "DBOPS_CONFIG", "DBOPS_NO_EMBEDDED", *LIBPQ_VARIABLES}
    assert {name for name in others if f"`{name}" not in text} == set()


@pytest.mark.quick
def test_every_table_index_and_query_of_the_memory_schema_is_described() -> None:
    text = (DOCS / "memory-schema.md").read_text(encoding="utf-8")
    files = [*(ROOT / "migrations" / "sql").glob("*.sql"), ROOT / "dbops" / "memory" / "queries.sql"]
    source = "\n".join(file.read_text(encoding="utf-8") for file in files)
    made_by = r"create table public\.|create (?:unique )?index (?:concurrently )?"
    names = re.findall(rf"^(?:{made_by}|-- name: )(\w+)", source, re.MULTILINE)
    assert len(names) > 40
    assert {name for name in names if f"`{name}`" not in text} == set()


@pytest.mark.quick
def test_every_error_and_exit_code_is_described() -> None:
    page = DOCS / "errors.md"
    classes = [c for c in vars(errors).values() if isinstance(c, type) and issubclass(c, errors.DbopsError)]
    text = sections(page)
    for each in classes:
        assert f"Exit {each.exit_code}, code `{each.code}`." in text[each.__name__], each.__name__
    described = {int(name): cells[0] for name, cells in rows(page).items() if name.isdigit()}
    assert described == errors.EXIT_CODES


if __name__ == "__main__":
    for name in sys.argv[1:]:
        rewrite(Path(name))
