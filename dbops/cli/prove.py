"""`dbops migrate prove`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import click

from dbops.cli.main import common
from dbops.cli.migrate import SCRATCH, manager
from dbops.cli.output import Output
from dbops.migrate.prove import Proof, Remark


@click.command()
@click.argument("versions", nargs=-1, metavar="[VERSION]...")
@click.option("--all", "everything", is_flag=True, help="Every migration of the folder (the default).")
@click.option("--pending", is_flag=True, help="Those that the database does not have yet.")
@SCRATCH
@common
def prove(out: Output, versions: tuple[str, ...], everything: bool, pending: bool) -> int:
    """Prove up, down, up on a scratch server, with rows made up before and between.

    \b
    dbops migrate prove --pending          before a deploy
    dbops migrate prove 20250201_000002    one of them

    Exit 1 where one failed, 4 where nothing was proven.
    """
    if ((everything or pending) and versions) or (everything and pending):
        raise click.UsageError("give one of VERSION, --all, --pending")
    proof = manager(out).prove(versions, pending=pending)
    out.result(proof_document(proof), proof_text(proof))
    if proof.failed:
        return 1
    return 0 if proof.proven else 4


def proof_document(proof: Proof) -> dict[str, Any]:
    return {
        "proven": list(proof.proven),
        "failed": [{"version": f.version, "step": f.step, "diff": f.diff} for f in proof.failed],
        "irreversible": remarks(proof.irreversible),
        "not_proven": remarks(proof.not_proven),
        "notes": remarks(proof.notes),
        "server_version": proof.server_version,
        "server": proof.server_kind,
    }


def remarks(items: Sequence[Remark]) -> list[dict[str, str]]:
    return [{"version": item.version, "reason": item.reason} for item in items]


def proof_text(proof: Proof) -> str:
    lines = [f"proven        {version}: up, down, up; schema and rows are the same" for version in proof.proven]
    lines += [f"note          {r.version}: {r.reason}" for r in proof.notes]
    lines += [f"irreversible  {r.version}: {r.reason}" for r in proof.irreversible]
    lines += [f"not proven    {r.version}: {r.reason}" for r in proof.not_proven]
    lines += [f"FAILED        {f.version} at {f.step}:\n{indented(f.diff)}" for f in proof.failed]
    lines.append(
        f"on PostgreSQL {proof.server_version} ({proof.server_kind}): {len(proof.proven)} proven, {len(proof.failed)} failed, "
        f"{len(proof.irreversible)} irreversible, {len(proof.not_proven)} not proven"
    )
    return "\n".join(lines)


def indented(text: str) -> str:
    return "\n".join(f"    {line}" for line in text.splitlines())
