"""Reverse against PostgreSQL as its judge: random files, and the names that it chooses itself."""

from __future__ import annotations

import random
from contextlib import suppress
from typing import Any

import psycopg
import pytest
from psycopg import sql

from dbops.migrate.parse import parse
from dbops.migrate.reverse import quote_ident, reverse

SEEDS = 5
Connection = psycopg.Connection[Any]

# {t} {u} tables, {c} {d} columns, {i} index, {e} type, {f} function, {v} view, {k} constraint, policy or trigger
POOL = """
CREATE TABLE {t} (x int, y text DEFAULT 'q')
CREATE TABLE {t} (id int PRIMARY KEY, x int, y {e})
CREATE TABLE {t} (LIKE {u} INCLUDING ALL)
CREATE TABLE {t} AS SELECT * FROM {u}
CREATE TABLE {t} (x int, y text) PARTITION BY LIST (x)
CREATE TABLE {t} PARTITION OF {u} DEFAULT
ALTER TABLE {t} ATTACH PARTITION {u} FOR VALUES IN (1, 2)
ALTER TABLE {t} ADD COLUMN {c} int
ALTER TABLE {t} ADD COLUMN {c} {e} UNIQUE
ALTER TABLE {t} ADD COLUMN {c} int DEFAULT 5, ADD COLUMN {d} text, ADD CHECK ({c} > 0)
ALTER TABLE {t} ADD COLUMN {c} int REFERENCES {u}
ALTER TABLE {t} DROP COLUMN {c}
ALTER TABLE {t} RENAME {c} TO {d}
ALTER TABLE {t} RENAME TO {u}
ALTER TABLE {t} ALTER {c} TYPE text
ALTER TABLE {t} ALTER {c} TYPE {e} USING NULL
ALTER TABLE {t} ALTER {c} SET NOT NULL
ALTER TABLE {t} ALTER {c} SET DEFAULT NULL
ALTER TABLE {t} ALTER {c} SET DEFAULT nextval('s')
ALTER TABLE {t} ALTER {c} DROP DEFAULT
ALTER TABLE {t} ALTER {c} SET NOT NULL, ADD PRIMARY KEY ({c})
ALTER TABLE {t} ADD UNIQUE ({c})
ALTER TABLE {t} ADD FOREIGN KEY ({c}) REFERENCES {u}
ALTER TABLE {t} ADD CONSTRAINT {k} CHECK ({f}({c}) > 0) NOT VALID
ALTER TABLE {t} ADD CONSTRAINT {k} UNIQUE USING INDEX {i}
ALTER TABLE {t} DROP CONSTRAINT {k}
ALTER TABLE {t} RENAME CONSTRAINT {k} TO l
ALTER TABLE {t} ENABLE ROW LEVEL SECURITY
ALTER TABLE {t} SET (fillfactor = 50)
ALTER TABLE {t} REPLICA IDENTITY USING INDEX {i}
ALTER TABLE {t} DISABLE TRIGGER {k}
CREATE INDEX ON {t} ({c})
CREATE UNIQUE INDEX {i} ON {t} ({c})
CREATE INDEX {i} ON {t} (({f}({c})))
ALTER INDEX {i} RENAME TO i2
DROP INDEX {i}
CREATE STATISTICS ON {c}, {d} FROM {t}
CREATE TYPE {e} AS ENUM ('a', 'b')
CREATE DOMAIN {e} AS int
ALTER TYPE {e} RENAME TO e2
ALTER TYPE {e} ADD VALUE 'z'
ALTER DOMAIN {e} ADD CONSTRAINT {k} CHECK (VALUE > 0)
DROP TYPE {e}
CREATE FUNCTION {f}() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NEW; END'
CREATE FUNCTION {f}(n int) RETURNS int IMMUTABLE LANGUAGE sql AS 'SELECT 1'
CREATE OR REPLACE FUNCTION {f}(n int) RETURNS int IMMUTABLE LANGUAGE sql AS 'SELECT 2'
ALTER FUNCTION {f}(int) RENAME TO g
DROP FUNCTION {f}(int)
CREATE TRIGGER {k} BEFORE INSERT ON {t} FOR EACH ROW EXECUTE FUNCTION {f}()
DROP TRIGGER {k} ON {t}
CREATE POLICY {k} ON {t} USING ({f}({c}) > 0)
CREATE POLICY {k} ON {t} USING (EXISTS (SELECT * FROM {u}))
ALTER POLICY {k} ON {t} RENAME TO l
DROP POLICY {k} ON {t}
CREATE RULE {k} AS ON DELETE TO {t} DO INSTEAD INSERT INTO {u} DEFAULT VALUES
CREATE VIEW {v} AS SELECT * FROM {t}
CREATE OR REPLACE VIEW {v} AS SELECT {c} FROM {t}
DROP VIEW {v}
CREATE SEQUENCE s
ALTER SEQUENCE s OWNED BY {t}.{c}
COMMENT ON TABLE {t} IS 'n'
COMMENT ON COLUMN {t}.{c} IS 'n'
GRANT UPDATE ({c}) ON {t} TO PUBLIC
INSERT INTO {t} DEFAULT VALUES
UPDATE {t} SET {c} = NULL
DELETE FROM {t}
DROP TABLE {t}
""".strip().splitlines()
NAMES = {
    "t": "old a b",
    "u": "old a b",
    "c": "x y z id",
    "d": "x y z",
    "i": "i j",
    "e": "e",
    "f": "f g",
    "v": "v",
    "k": "k l",
}
STATE = """
SELECT concat_ws(' ', 'relation', relname, relkind, relrowsecurity, relreplident, reloptions, obj_description(oid, 'pg_class'),
       CASE WHEN relkind = 'v' THEN pg_get_viewdef(oid) END, pg_get_expr(relpartbound, oid))
  FROM pg_class WHERE relnamespace = 'random'::regnamespace AND relkind IN ('r', 'p', 'v', 'S')
UNION ALL SELECT concat_ws(' ', 'column', attrelid::regclass, attname, format_type(atttypid, atttypmod), attnotnull,
       pg_get_expr(adbin, adrelid), col_description(attrelid, attnum), attacl)
  FROM pg_attribute LEFT JOIN pg_attrdef ON adrelid = attrelid AND adnum = attnum
 WHERE attnum > 0 AND NOT attisdropped AND attrelid IN (SELECT oid FROM pg_class WHERE relnamespace = 'random'::regnamespace)
UNION ALL SELECT concat_ws(' ', 'constraint', conrelid::regclass, contypid::regtype, conname, pg_get_constraintdef(oid))
  FROM pg_constraint WHERE connamespace = 'random'::regnamespace
UNION ALL SELECT concat_ws(' ', pg_get_indexdef(indexrelid), indisreplident)
  FROM pg_index JOIN pg_class c ON c.oid = indrelid WHERE relnamespace = 'random'::regnamespace
UNION ALL SELECT concat_ws(' ', pg_get_triggerdef(oid), tgenabled) FROM pg_trigger WHERE NOT tgisinternal
UNION ALL SELECT concat_ws(' ', 'policy', polname, polrelid::regclass, pg_get_expr(polqual, polrelid)) FROM pg_policy
UNION ALL SELECT pg_get_functiondef(oid) FROM pg_proc WHERE pronamespace = 'random'::regnamespace
UNION ALL SELECT concat_ws(' ', 'type', typname, (SELECT string_agg(enumlabel, ',') FROM pg_enum WHERE enumtypid = t.oid))
  FROM pg_type t WHERE typnamespace = 'random'::regnamespace AND typtype IN ('e', 'd')
UNION ALL SELECT concat_ws(' ', 'owned', objid::regclass, refobjid::regclass, refobjsubid)
  FROM pg_depend WHERE deptype = 'a' AND objid IN (SELECT seqrelid FROM pg_sequence)
UNION ALL SELECT pg_get_statisticsobjdef(oid) FROM pg_statistic_ext
UNION ALL SELECT pg_get_ruledef(r.oid) FROM pg_rewrite r JOIN pg_class c ON c.oid = ev_class
 WHERE relnamespace = 'random'::regnamespace AND rulename <> '_RETURN'
"""


def state(conn: Connection) -> list[str]:
    """The schema and, while it has its name, the rows of the table that was there before."""
    rows = conn.execute(STATE).fetchall()
    if conn.execute("SELECT to_regclass('old')").fetchone() != (None,):
        rows += conn.execute("SELECT 'row ' || old::text FROM old").fetchall()
    return sorted(row[0] for row in rows)


def taken(conn: Connection, statement: str, before: list[str]) -> list[str]:
    """The state after a statement; an empty one, and no trace, where PostgreSQL refuses it or nothing changes."""
    after: list[str] = []
    with suppress(psycopg.Error), conn.transaction():
        conn.execute(statement.encode())
        after = state(conn)
        if after == before and not statement.startswith(("INSERT", "UPDATE", "DELETE")):
            after = []
            raise psycopg.Rollback
    return after


def random_file(conn: Connection, choose: random.Random, size: int) -> list[str]:
    """Statements that PostgreSQL takes, that change something, and that all have a way back."""
    statements: list[str] = []
    before = state(conn)
    for _ in range(size * 12):
        names = {kind: choose.choice(some.split()) for kind, some in NAMES.items()}
        statement = choose.choice(POOL).format(**names)
        if reverse(parse(";".join([*statements, statement]))).irreversible:
            continue
        if after := taken(conn, statement, before):
            statements.append(statement)
            before = after
        if len(statements) == size:
            break
    return statements


@pytest.mark.parametrize("batch", range(4))
def test_random_files_come_back_to_where_they_began(empty_db: Connection, batch: int) -> None:
    for seed in range(batch * 1000, batch * 1000 + SEEDS):
        with empty_db.transaction(force_rollback=True):
            empty_db.execute(
                "SET LOCAL client_min_messages = error; CREATE SCHEMA random; SET LOCAL search_path = random;"
                "CREATE TABLE old (x int, y text, id int); INSERT INTO old VALUES (1, 'a', 1), (2, NULL, 2)"
            )
            before = state(empty_db)
            statements = random_file(empty_db, random.Random(seed), 14)
            down = reverse(parse(";\n".join(statements))).sql
            said = f"seed {seed}\n" + ";\n".join(statements) + f"\n-- down\n{down}"
            for statement in parse(down):
                try:
                    empty_db.execute(statement.sql.encode())
                except psycopg.Error as error:
                    pytest.fail(f"{said}\n{error}")
            assert state(empty_db) == before, said


def test_names_are_chosen_as_postgresql_chooses_them(empty_db: Connection) -> None:
    """Every reverse that rests on such a name finds it."""
    choose = random.Random(1)
    for number in range(25):
        table, *columns = (
            str(number) + "".join(choose.choices('abcé日A_ "', k=choose.choice([1, 5, 20, 45]))) for _ in range(4)
        )
        table, one, two, three = map(quote_ident, (table, *columns))
        if len({one[:20], two[:20], three[:20]}) < 3:
            continue
        empty_db.execute(f"CREATE TABLE {table} ({one} int, {two} int, {three} int NOT NULL)".encode())
        before = empty_db.execute(_NAMED).fetchall()
        text = f"""
            ALTER TABLE {table} ADD UNIQUE ({one}), ADD UNIQUE ({two}, {three}) INCLUDE ({one});
            ALTER TABLE {table} ADD CHECK ({one} > 0), ADD CHECK ({two} > {one}), ADD PRIMARY KEY ({three});
            ALTER TABLE {table} ADD EXCLUDE USING btree ({one} WITH =, {two} WITH =);
            ALTER TABLE {table} ADD FOREIGN KEY ({one}) REFERENCES {table}, ADD FOREIGN KEY ({two}) REFERENCES {table};
            CREATE INDEX ON {table} ({one}); CREATE INDEX ON {table} ({three}, {one}) INCLUDE ({two});
            CREATE INDEX ON {table} (abs({one}));
            CREATE STATISTICS ON {one}, {two} FROM {table};
        """
        empty_db.execute(text.encode())
        empty_db.execute(reverse(parse(text)).sql.encode())
        assert empty_db.execute(_NAMED).fetchall() == before
        empty_db.execute(sql.SQL("DROP TABLE {}").format(sql.SQL(table)))


_NAMED = """
    SELECT conname FROM pg_constraint WHERE connamespace = 'public'::regnamespace
    UNION ALL SELECT relname FROM pg_class WHERE relnamespace = 'public'::regnamespace
    UNION ALL SELECT stxname FROM pg_statistic_ext ORDER BY 1
"""
