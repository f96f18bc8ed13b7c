"""Faults to plant for the doctor: beside each stands what looks like it and is none."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

Told = tuple[str, str]  # severity, object


@dataclass(frozen=True)
class Plant:
    """`beside` must not be reported; `sql` must, as `told`; after the fixes (where `mends`) nothing is left."""

    check: str
    sql: str
    told: tuple[Told, ...]
    beside: str = ""
    limits: Mapping[str, float | str] = field(default_factory=dict)
    mends: bool = True
    kind: str = "empty"
    name: str = ""


ROLES = """
do $$ begin
  create role anon nologin; exception when duplicate_object or unique_violation then null;
end $$;
grant usage on schema public to anon;
"""
FLUSH = "select pg_stat_force_next_flush();"

CATALOG = (
    Plant(
        "invalid-index",
        "update pg_index set indisvalid = false where indexrelid = 'bad'::regclass",
        (("warning", "public.bad"),),
        beside="create table t (a int, b int); create index good on t (a); create index bad on t (b)",
    ),
    Plant(
        "invalid-index",
        "update pg_index set indisvalid = false where indexrelid = 'good_ccnew'::regclass",
        (("warning", "public.good_ccnew"),),
        beside="create table t (a int); create index good on t (a); create index good_ccnew on t (a)",
        name="left over by a rebuild",
    ),
    Plant(
        "invalid-index",
        "update pg_index set indisvalid = false where indexrelid = 'bad'::regclass",
        (("error", "public.bad"),),
        beside="create table t (a int, b int); create unique index bad on t (b)",
        name="unique",
    ),
    Plant(
        "unused-index",
        "create index never on t (b)",
        (("info", "public.never"),),
        beside="""create table t (a int primary key, b int unique, r int references t, c int);
                  create index for_the_key on t (r); create index used on t (c); insert into t select n, n, null, n from generate_series(1, 99) n;
                  set enable_seqscan = off; select count(*) from t where c = 3; """
        + FLUSH,
        limits={"unused-index.days": 0, "unused-index.mib": 0},
    ),
    Plant(
        "duplicate-index",
        "create index twin on t (a, b); create unique index twin_of_key on t (a)",
        (("warning", "public.twin"), ("warning", "public.twin_of_key")),
        beside="""create table t (a int primary key, b int, c text);
                  create index one on t (a, b); create index two on t (b, a); create index three on t (a desc, b);
                  create index four on t (a, b) where b > 0; create index five on t (c); create index six on t (c text_pattern_ops);
                  create index seven on t (lower(c)); create index eight on t (upper(c)); create index nine on t using hash (b)""",
    ),
    Plant(
        "duplicate-index",
        "alter table t add constraint again unique (a)",
        (("warning", "public.again"),),
        beside="create table t (a int unique, b int)",
        name="a constraint",
    ),
    Plant(
        "overlapping-index",
        "create index short on t (b); create index same_as_unique on t (c)",
        (("info", "public.same_as_unique"), ("info", "public.short")),
        beside="""create table t (a int primary key, b int, c int unique);
                  create index long on t (b, c); create index partial on t (b) where c > 0; create index backward on t (b desc);
                  create index covering on t (b) include (a)""",
    ),
    Plant(
        "foreign-key-index",
        "alter table child add column p2 int references parent",
        (("info", "public.child.child_p2_fkey"),),
        beside="""create table parent (id int primary key, x int, unique (id, x));
                  create table child (p int references parent, q int references parent, r int, s int, foreign key (r, s) references parent (id, x));
                  create index on child (p); create index on child (q) where q is not null; create index on child (s, r, p)""",
    ),
    Plant(
        "foreign-key-index",
        "drop index i; insert into parent values (2); delete from parent where id = 2; analyze child; " + FLUSH,
        (("warning", "public.child.child_p_fkey"),),
        beside="create table parent (id int primary key); create table child (p int); insert into child values (1);"
        " insert into parent values (1); alter table child add foreign key (p) references parent; create index i on child (p)",
        limits={"foreign-key-index.rows": 1},
        name="large, and rows are deleted",
    ),
    Plant(
        "foreign-key-type",
        "create table child (p int references parent)",
        (("warning", "public.child.p"),),
        beside="create table parent (id bigint primary key); create table good (p bigint references parent)",
    ),
    Plant(
        "primary-key",
        "create table t (a int); create table u (a int not null); create unique index u_a on u (a)",
        (("warning", "public.t"), ("warning", "public.u")),
        beside="create table good (a int primary key); create view v as select 1;"
        " create table p (a int primary key) partition by range (a); create table p1 partition of p for values from (1) to (2)",
    ),
    Plant(
        "primary-key",
        "create table t (a int); create publication p for table t",
        (("error", "public.t"),),
        beside="create table good (a int primary key); create publication q for table good; create table f (a int not null);"
        " alter table f replica identity full; alter table f add primary key (a)",
        name="published",
    ),
    Plant(
        "rls-disabled",
        "grant select on t to anon; create policy p on u using (true)",
        (("error", "public.t"), ("error", "public.u")),
        beside=ROLES
        + "create table t (a int); create table u (a int); create table v (a int); alter table v enable row level security;"
        " grant select on v to anon; create schema hidden; create table hidden.t (a int); grant select on hidden.t to anon",
    ),
    Plant(
        "rls-without-policy",
        "grant select on t to anon",
        (("info", "public.t"),),
        beside=ROLES + "create table t (a int); alter table t enable row level security;"
        " create table v (a int); alter table v enable row level security; grant select on v to anon; create policy p on v using (true)",
        mends=False,
    ),
    Plant(
        "exposed-view",
        "grant select on past to anon",
        (("warning", "public.past"),),
        beside=ROLES
        + "create table t (a int); alter table t enable row level security; create table open (a int); create view past as select * from t;"
        " create view good with (security_invoker = on) as select * from t; grant select on good to anon;"
        " create view plain as select * from open; grant select on plain to anon",
    ),
    Plant(
        "exposed-view",
        "grant select on kept to anon",
        (("warning", "public.kept"),),
        beside=ROLES
        + "create table t (a int); alter table t enable row level security; create materialized view kept as select * from t",
        name="a materialized view",
    ),
    Plant(
        "sequence-exhaustion",
        "select setval('t_id_seq', 1700000000); select setval('small', 95); select setval('narrow', 31000)",
        (("error", "public.narrow"), ("error", "public.small"), ("warning", "public.t_id_seq")),
        beside="""create table t (id serial primary key); create table b (id bigserial primary key); select setval('b_id_seq', 1700000000);
                  create sequence small maxvalue 100; create sequence narrow; create table n (id smallint default nextval('narrow'));
                  create sequence round maxvalue 3 cycle; select setval('round', 3); create sequence down increment -1 minvalue -100; select setval('down', -3)""",
    ),
    Plant(
        "integer-key",
        "insert into t values (2000000000); insert into s values (25000)",
        (("error", "public.t.id"), ("warning", "public.s.id")),
        beside="""create table t (id int primary key); create table s (id smallint primary key); insert into t values (1000);
                  create table b (id bigint primary key); insert into b values (2000000000);
                  create table q (id serial primary key); insert into q values (2000000000)""",
    ),
    Plant(
        "wraparound",
        "",
        (),
        limits={"wraparound.million": 500},
        name="a young cluster",
    ),
    Plant(
        "stale-statistics",
        "insert into t select n from generate_series(1, 200) n; update u set a = a + 1; update u set a = a + 1; update u set a = a + 1; "
        + FLUSH,
        (("warning", "public.t"), ("warning", "public.u")),
        beside="create table t (a int); create table u (a int); insert into u select n from generate_series(1, 200) n; "
        + FLUSH
        + "analyze u; "
        + FLUSH,
        limits={"stale-statistics.rows": 100},
    ),
    Plant(
        "stale-statistics",
        "insert into p select n from generate_series(1, 200) n; " + FLUSH + "analyze p1; " + FLUSH,
        (("warning", "public.p"),),
        beside="create table p (a int) partition by range (a); create table p1 partition of p default; analyze p1; "
        + FLUSH,
        limits={"stale-statistics.rows": 100},
        name="partitioned",
    ),
    Plant(
        "vacuum-overdue",
        "update t set a = a + 1; update t set a = a + 1; update t set a = a + 1; " + FLUSH,
        (("warning", "public.t"),),
        beside="create table t (a int); insert into t select n from generate_series(1, 200) n; vacuum analyze t; "
        + FLUSH,
        limits={"vacuum-overdue.rows": 100},
    ),
    Plant(
        "vacuum-overdue",
        "alter table t set (autovacuum_enabled = off)",
        (("warning", "public.t"),),
        beside="create table t (a int); insert into t select n from generate_series(1, 200) n; analyze t; create table small (a int) with (autovacuum_enabled = off)",
        limits={"vacuum-overdue.rows": 100},
        name="switched off",
    ),
    Plant(
        "table-bloat",
        "delete from t where a % 10 > 0; vacuum analyze t",
        (("warning", "public.t"),),
        beside="create table t (a int, b text); insert into t select n, repeat('x', n % 90) from generate_series(1, 30000) n; vacuum analyze t",
        limits={"table-bloat.mib": 1},
    ),
    Plant(
        "index-bloat",
        "delete from t where a % 20 > 0; vacuum analyze t",
        (("warning", "public.i"),),
        beside="create table t (a int, b text); insert into t select n, n::text from generate_series(1, 60000) n; create index i on t (a); vacuum analyze t",
        limits={"index-bloat.mib": 1},
    ),
    Plant(
        "not-valid-constraint",
        "alter table t add constraint positive check (a > 0) not valid; alter domain d add constraint short check (length(value) < 9) not valid",
        (("warning", "domain public.d, short"), ("warning", "public.t.positive")),
        beside="create table t (a int check (a < 100)); create domain d as text check (value <> '')",
    ),
    Plant(
        "orphans",
        "set session_replication_role = replica; insert into child values (9, 9); delete from parent where a = 1; reset session_replication_role",
        (("error", "public.child.child_a_b_fkey"),),
        beside="""create table parent (a int, b int, primary key (a, b)); create table child (a int, b int, foreign key (a, b) references parent);
                  insert into parent values (1, 1), (2, 2); insert into child values (1, 1), (2, 2), (7, null), (null, null)""",
        mends=False,
    ),
    Plant(
        "disabled-trigger",
        "alter table t disable trigger tr; alter event trigger ev disable; alter table c disable trigger all",
        (("error", "public.c.c_a_fkey"), ("warning", "event trigger ev"), ("warning", "public.t.tr")),
        beside="""create function f() returns trigger language plpgsql as 'begin return new; end'; create table t (a int primary key);
                  create function e() returns event_trigger language plpgsql as 'begin end';
                  create trigger tr before insert on t for each row execute function f(); create event trigger ev on sql_drop execute function e();
                  create table c (a int references t); create table c2 (a int references t)""",
    ),
    Plant(
        "outdated-extension",
        "update pg_extension set extversion = '0.0' where extname = 'plpgsql'",
        (("info", "extension plpgsql"),),
        mends=False,
    ),
    Plant(
        "duplicate-cycle",
        """insert into auth.users (id) values ('00000000-0000-0000-0000-000000000001');
           insert into user_memories (user_id, id, fact, memory_type, is_active)
             select '00000000-0000-0000-0000-000000000001', ('00000000-0000-0000-0000-00000000000' || n)::uuid, 'f', 'fact', false from generate_series(1, 4) n;
           update user_memories set duplicate_of = ('00000000-0000-0000-0000-00000000000' || (right(id::text, 1)::int % 3 + 1))::uuid""",
        (("error", "memory 00000000-0000-0000-0000-000000000001 of user 00000000-0000-0000-0000-000000000001"),),
        kind="memory",
    ),
    Plant(
        "duplicate-chain",
        """insert into auth.users (id) values ('00000000-0000-0000-0000-000000000001');
           insert into user_memories (user_id, id, fact, memory_type, is_active)
             select '00000000-0000-0000-0000-000000000001', ('00000000-0000-0000-0000-00000000000' || n)::uuid, 'f', 'fact', n = 1 from generate_series(1, 5) n;
           update user_memories set duplicate_of = '00000000-0000-0000-0000-000000000001' where id in ('00000000-0000-0000-0000-000000000002', '00000000-0000-0000-0000-000000000005');
           update user_memories set duplicate_of = '00000000-0000-0000-0000-000000000002' where id = '00000000-0000-0000-0000-000000000003';
           update user_memories set duplicate_of = '00000000-0000-0000-0000-000000000003' where id = '00000000-0000-0000-0000-000000000004'""",
        (
            ("warning", "memory 00000000-0000-0000-0000-000000000003 of user 00000000-0000-0000-0000-000000000001"),
            ("warning", "memory 00000000-0000-0000-0000-000000000004 of user 00000000-0000-0000-0000-000000000001"),
        ),
        kind="memory",
    ),
    Plant(
        "missing-embedding",
        """insert into user_memories (user_id, id, fact, memory_type) values ('00000000-0000-0000-0000-000000000001', '00000000-0000-0000-0000-000000000003', 'x', 'fact')""",
        (("info", "public.memory_embeddings"),),
        beside="""insert into auth.users (id) values ('00000000-0000-0000-0000-000000000001');
           insert into user_memories (user_id, id, fact, memory_type, is_active) values
             ('00000000-0000-0000-0000-000000000001', '00000000-0000-0000-0000-000000000001', 'f', 'fact', true),
             ('00000000-0000-0000-0000-000000000001', '00000000-0000-0000-0000-000000000002', 'f', 'fact', false);
           insert into embedding_models (model, dimensions) values ('m', 3);
           insert into memory_embeddings (user_id, memory_id, model, dimensions, embedding)
             values ('00000000-0000-0000-0000-000000000001', '00000000-0000-0000-0000-000000000001', 'm', 3, '[1,2,3]')""",
        kind="memory",
        mends=False,
    ),
    Plant(
        "missing-tokens",
        "delete from memory_tokens",
        (("warning", "public.memory_tokens"),),
        beside="""insert into auth.users (id) values ('00000000-0000-0000-0000-000000000001');
           insert into user_memories (user_id, id, fact, memory_type, is_active) values
             ('00000000-0000-0000-0000-000000000001', '00000000-0000-0000-0000-000000000001', '!', 'fact', true),
             ('00000000-0000-0000-0000-000000000001', '00000000-0000-0000-0000-000000000002', 'f', 'fact', false)""",
        kind="memory",
    ),
    Plant(
        "stale-tokens",
        "set session_replication_role = replica; delete from user_memories where fact = 'f'; update user_memories set fact = 'h'",
        (("warning", "public.memory_tokens"),),
        beside="""insert into auth.users (id) values ('00000000-0000-0000-0000-000000000001');
           insert into user_memories (user_id, fact, memory_type)
             select '00000000-0000-0000-0000-000000000001', x, 'fact' from unnest(array['f', 'g']) x""",
        kind="memory",
    ),
    Plant(
        "empty-embedding",
        "insert into t values ('[0,0,0]', null), ('[1,1,1]', null); insert into nulls values (null); insert into sparse values ('{}/5')",
        (("info", "public.nulls.e"), ("info", "public.t.h"), ("warning", "public.sparse.e"), ("warning", "public.t.e")),
        beside="""create extension vector; create table t (e vector(3), h halfvec(2)); create table nulls (e vector); create table sparse (e sparsevec(5));
                  insert into t values ('[1,2,3]', '[1,2]'); insert into nulls values ('[1]')""",
        mends=False,
    ),
    Plant(
        "embedding-dimensions",
        "insert into t values ('[1,2]'); insert into by_model values ('small', '[1,2]')",
        (("warning", "public.by_model.e"), ("warning", "public.t.e")),
        beside="""create extension vector; create table t (e vector); create table by_model (model text, e vector);
                  insert into t values ('[1,2,3]'), ('[1,2,4]'); insert into by_model values ('small', '[1]'), ('large', '[1,2,3]')""",
        mends=False,
    ),
    Plant(
        "embedding-models",
        "insert into t values ('another', '[1,2,4]')",
        (("warning", "public.mixed"),),
        beside="""create extension vector; create table t (model text, e vector(3)); insert into t values ('one', '[1,2,3]');
                  create index mixed on t using hnsw (e vector_l2_ops); create index apart on t using hnsw (e vector_cosine_ops) where model = 'one'""",
        mends=False,
    ),
    Plant(
        "ivfflat-empty",
        "insert into early select array[n, n % 7, 1]::vector from generate_series(1, 200) n",
        (("warning", "public.early_e"),),
        beside="""create extension vector; create table early (e vector(3)); create index early_e on early using ivfflat (e vector_l2_ops) with (lists = 2);
                  create table late (e vector(3)); insert into late select array[n, n % 7, 1]::vector from generate_series(1, 200) n;
                  create index late_e on late using ivfflat (e vector_l2_ops) with (lists = 2); analyze late; vacuum late""",
    ),
    Plant(
        "hnsw-filtered",
        "create policy p on t using (true); alter table t enable row level security",
        (("warning", "public.t_e"),),
        beside="""create extension vector; create table t (e vector(3)); create index t_e on t using hnsw (e vector_l2_ops);
                  create table flat (e vector(3)); alter table flat enable row level security""",
    ),
)
