"""Comments that say: this is meant. `-- dbops:ignore RULE REASON`, `-- dbops:ignore-file RULE REASON`."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from dbops.migrate.files import Script
from dbops.migrate.lint.model import RULES, File, Finding, finding, notice
from dbops.migrate.lint.source import placed

_OURS = re.compile(r"--[ \t]*dbops:ignore(-file)?(?![\w-])[ \t]*(\S*)[ \t]*(.*?)[ \t]*$")
_SQUAWKS = re.compile(r"--[ \t]*squawk-ignore(-file)?[ \t]+([a-z-]+(?:[ \t]*,[ \t]*[a-z-]+)*)")

WITHOUT_REASON = notice(
    "suppression-without-reason",
    "error",
    "A suppression that does not say why: it suppresses nothing.",
    "write the reason behind the rule's name: -- dbops:ignore RULE REASON",
)
UNUSED = notice(
    "suppression-unused",
    "info",
    "A suppression that suppresses nothing.",
    "take the comment out, or mend the rule's name",
)


@dataclass(frozen=True)
class Suppression:
    """One comment. `lines` are those it speaks of; None is the whole file."""

    script: Script
    line: int
    rules: tuple[str, ...]
    reason: str
    lines: range | None
    ours: bool = True

    def covers(self, found: Finding) -> bool:
        return bool(self.reason) and found.rule in self.rules and (self.lines is None or found.line in self.lines)


def suppressions(file: File) -> Iterator[Suppression]:
    """Those on statements stand in the up part, those on the file in either."""
    up, down = file.migration.up, file.migration.down
    text = placed(file.migration).split("\n")
    for line, content in enumerate(text, 1):
        yield from _of_line(file, up, line, content, text)
    for line, content in enumerate(down.sql.split("\n") if down else (), down.line if down else 1):
        if down and (match := _OURS.search(content)):
            lines = None if match[1] else range(0)
            yield Suppression(down, line, tuple(match[2].split(",")), match[3], lines)


def _of_line(file: File, script: Script, line: int, content: str, text: Sequence[str]) -> Iterator[Suppression]:
    if match := _OURS.search(content):
        lines = None if match[1] else _spoken_of(file, line, text)
        yield Suppression(script, line, tuple(match[2].split(",")), match[3], lines)
    if match := _SQUAWKS.search(content):
        theirs = {name.strip() for name in match[2].split(",")}
        names = tuple(rule.name for rule in RULES.values() if theirs & set(rule.replaces))
        lines = None if match[1] else _spoken_of(file, line, text)
        yield Suppression(script, line, names, "squawk's own comment", lines, ours=False)


def _spoken_of(file: File, line: int, text: Sequence[str]) -> range:
    """The lines of the statement on this line, or of the one right below the comment."""
    for statement in file.up:
        last = statement.line + statement.sql.count("\n")
        if statement.line <= line <= last:
            return range(statement.line, last + 1)
        if statement.line > line:
            between = text[line : statement.line - 1]
            return range(statement.line, last + 1) if all(c.lstrip().startswith("--") for c in between) else range(0)
    return range(0)


def suppressed(file: File, found: Sequence[Finding], *, squawk_ran: bool) -> list[Finding]:
    """The findings without those that a comment suppresses, and what is wrong with the comments."""
    comments = list(suppressions(file))
    kept = [each for each in found if not any(comment.covers(each) for comment in comments)]
    for comment in filter(lambda c: c.ours, comments):
        if not comment.reason:
            message = f"{','.join(filter(None, comment.rules)) or 'no rule'}: the comment gives no reason"
            kept.append(finding(WITHOUT_REASON, comment.script, comment.line, message))
            continue
        for rule in comment.rules:
            if not _used(comment, rule, found) and (squawk_ran or not rule.startswith("squawk/")):
                known = rule in RULES or rule.startswith("squawk/")
                message = f"{rule} is not found here" if known else f"there is no rule {rule}"
                kept.append(finding(UNUSED, comment.script, comment.line, message))
    return kept


def _used(comment: Suppression, rule: str, found: Sequence[Finding]) -> bool:
    return any(each.rule == rule and comment.covers(each) for each in found)
