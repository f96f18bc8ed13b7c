"""`dbops policy attack` and `lint`: what gets through, and what looks as if it would."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from typing import TYPE_CHECKING, Any

import click

from dbops.cli.findings import FAIL_ON, FORMAT, document_of, failing, file_place, report, text_of
from dbops.cli.main import common
from dbops.cli.migrate import SCRATCH, WAIT
from dbops.cli.output import Output
from dbops.cli.policy import manager
from dbops.cli.policy_output import ATTACK_RULES, attack_document, attack_findings, attack_text, disagreements_text
from dbops.errors import UsageError, shown

if TYPE_CHECKING:
    from dbops.policy import Definitions, PolicyManager
    from dbops.policy.lint import Finding


@click.command()
@click.option("--live", is_flag=True, help="Attack a copy of the target, and the target itself with SELECT only.")
@click.option("--mutate", is_flag=True, help="Weaken each policy in turn: the attack must notice every one.")
@click.option("--table", "tables", multiple=True, metavar="TABLE", help="Only this table; may be repeated.")
@FORMAT
@SCRATCH
@WAIT
@common
def attack(out: Output, live: bool, mutate: bool, tables: tuple[str, ...], form: str) -> int:
    """Try what the definitions do not allow, on a scratch server built from migrations and definitions.

    Exit 4 where something leaks, nothing was proven of a table, or a weakened policy was not noticed. The matrix
    (table x verb x actor) shows the tables of which something is found; with -v all of them, with --json too.

    \b
    dbops policy attack --mutate
    dbops policy attack --table public.notes -v
    dbops policy attack --live --url "$PROD_URL"
    dbops policy attack --format sarif > attack.sarif
    """
    from dbops.policy import PolicyManager

    library = manager(out) if live else PolicyManager(settings=out.settings, tell=out.say)
    found = library.attack(build=builder(out), live=live, mutate=mutate, tables=tables or None)
    report(
        out,
        attack_findings(found, library.definitions()),
        ATTACK_RULES,
        form,
        attack_document(found),
        attack_text(found, whole=out.verbose),
    )
    survived = found.mutants is not None and found.mutants.survived
    return 4 if found.verdict != "isolated" or survived else 0


def builder(out: Output) -> Callable[[str], None]:
    """Builds the schema in an empty database: all migrations of the project."""

    def build(url: str) -> None:
        from dbops.migrate import MigrationManager

        settings = replace(out.settings, url=url, url_source="scratch", search_path="")
        outcome = MigrationManager(settings=settings).migrate_up()
        for waiting in outcome.plan.waiting:
            out.warn(f"not attacked: migration {waiting.version} is not applied there: {waiting.reason}")

    return build


@click.command()
@click.option("--pgrls/--no-pgrls", default=True, help="With pgrls's rules, where it is installed (default).")
@click.option("--ignore", multiple=True, metavar="RULE[:TABLE]", help="Without this rule; may be repeated.")
@click.option("--attack", "attacked", is_flag=True, help="Attack a copy too, and show where the two disagree.")
@FAIL_ON
@FORMAT
@SCRATCH
@WAIT
@common
def lint(out: Output, pgrls: bool, ignore: tuple[str, ...], attacked: bool, fail_on: str, form: str) -> int:
    """Find what is wrong with policies, grants, views, functions and keys. docs/policy-lint.md describes each rule.

    \b
    dbops policy lint --fail-on error
    dbops policy lint --ignore policy-to-public:public.notes
    dbops policy lint --attack                        what lint says beside what an attack gets
    dbops policy lint --format sarif > rls.sarif
    """
    from dbops.policy.lint import RULES, beside
    from dbops.policy.lint import lint as look

    _require_rules(ignore, RULES)
    library = manager(out)
    definitions = _definitions(out, library)
    found = look(definitions, library.catalog(), pgrls=pgrls, url=library.url)
    found = tuple(each for each in found if not {each.rule, f"{each.rule}:{each.table}"} & set(ignore))
    document: dict[str, Any] = {"findings": [document_of(each) | {"table": each.table} for each in found]}
    text, leaks = text_of(found, _place), False
    if attacked:
        proof = library.attack(build=builder(out), live=True)
        differ = beside(found, proof)
        leaks = proof.verdict != "isolated"
        document |= {"attack": attack_document(proof), "disagreements": [asdict(each) for each in differ]}
        text = "\n".join([text, *disagreements_text(differ), f"the attack: {proof.verdict}"])
    report(out, found, RULES, form, document, text)
    if leaks:
        return 4
    return 3 if failing(found, fail_on) else 0


def _place(each: Finding) -> str:
    return file_place(each) or each.table


def _definitions(out: Output, library: PolicyManager) -> Definitions:
    """The definitions; a database can be looked at before there are any."""
    from dbops.policy.model import Auth, Definitions

    if out.settings.policies.is_dir():
        return library.definitions()
    out.say(f"there is no folder {shown(out.settings.policies)}: looking at the database alone")
    return Definitions(Auth(), {})


def _require_rules(ignore: Sequence[str], known: object) -> None:
    for each in ignore:
        name = each.partition(":")[0]
        if not name.startswith("pgrls/") and name not in known:  # type: ignore[operator]
            raise UsageError(f"there is no rule {name}", hint="docs/policy-lint.md has them all; nothing was done")
