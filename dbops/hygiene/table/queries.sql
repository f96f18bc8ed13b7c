-- What the search in any table asks. The staging tables live in a transaction that is rolled back.

-- name: table
select c.oid::bigint, c.relkind::text, coalesce((
    select pg_catalog.array_agg(a.attname::text order by k.n)
    from pg_catalog.pg_index i cross join lateral unnest(i.indkey::int2[]) with ordinality k(attnum, n)
    join pg_catalog.pg_attribute a on a.attrelid = c.oid and a.attnum = k.attnum
    where i.indrelid = c.oid and i.indisprimary), '{}'),
  coalesce((
    select pg_catalog.array_agg(distinct f.conrelid::pg_catalog.regclass::text)
    from pg_catalog.pg_constraint f where f.contype = 'f' and f.confrelid = c.oid and f.confdeltype in ('c', 'n', 'd')), '{}'),
  coalesce((
    select pg_catalog.array_agg(h.inhrelid::pg_catalog.regclass::text order by h.inhrelid)
    from pg_catalog.pg_inherits h where h.inhparent = c.oid and c.relkind = 'r'), '{}')
from pg_catalog.pg_class c join pg_catalog.pg_namespace n on n.oid = c.relnamespace
where n.nspname = %(schema)s and c.relname = %(name)s;

-- name: columns
select a.attname::text, pg_catalog.format_type(a.atttypid, a.atttypmod), a.attgenerated <> '' as generated, a.attidentity = 'a' as always
from pg_catalog.pg_attribute a
where a.attrelid = %(table)s::bigint::pg_catalog.oid and a.attnum > 0 and not a.attisdropped order by a.attnum;

-- name: create_staging
create temporary table if not exists dbops_rows (rank bigint, key text, scope text, hash text, words text[], s int);
create temporary table if not exists dbops_sets (s int generated always as identity, scope text, words text[], tokens tsvector, n int);

-- name: fill_sets
insert into pg_temp.dbops_sets (scope, words, tokens, n)
select r.scope, r.words, pg_catalog.array_to_tsvector(r.words), pg_catalog.cardinality(r.words)
from pg_temp.dbops_rows r where pg_catalog.cardinality(r.words) > 0 group by r.scope, r.words;

-- name: number_rows
update pg_temp.dbops_rows r set s = x.s from pg_temp.dbops_sets x where x.scope = r.scope and x.words = r.words;

-- name: analyze_staging
analyze dbops_rows;
analyze dbops_sets;

-- name: pairs
-- the words in one order (rare ones first): above 0.5 two sets of a pair share two words of their first n - ceil(t n) + 2, else one of n - ceil(t n) + 1
with word as materialized (
  select x.s, x.scope, x.n, w.word from pg_temp.dbops_sets x cross join lateral pg_catalog.unnest(x.words) w(word)
  where x.n >= %(rare)s and %(t)s < 1
), frequency as (
  select w.scope, w.word, pg_catalog.count(*) as sets from word w group by w.scope, w.word
), prefix as materialized (
  select p.s, p.scope, p.n, p.word, p.place
  from (
    select w.s, w.scope, w.n, w.word, pg_catalog.row_number() over (partition by w.s order by f.sets, w.word) as place
    from word w join frequency f on f.scope = w.scope and f.word = w.word) p
  where p.place <= p.n - pg_catalog.ceil(%(t)s::float8 * p.n - 1e-9)::int + %(rare)s
), key as (
  select p.s, p.n, pg_catalog.hashtextextended(p.word, pg_catalog.hashtextextended(p.scope, 0)) as key from prefix p where %(rare)s = 1
  union all
  select p.s, p.n, pg_catalog.hashtextextended(q.word, pg_catalog.hashtextextended(p.word, pg_catalog.hashtextextended(p.scope, 0)))
  from prefix p join prefix q on q.s = p.s and q.place > p.place where %(rare)s = 2
), candidate as (
  select distinct x.s as one, y.s as other from key x join key y on y.key = x.key and (y.n, y.s) > (x.n, x.s)
  where x.n >= %(t)s::float8 * y.n - 1e-9
)
select c.one, c.other, (x.n + y.n - u.n)::float8 / u.n
from candidate c join pg_temp.dbops_sets x on x.s = c.one join pg_temp.dbops_sets y on y.s = c.other
cross join lateral (select pg_catalog.length(x.tokens || y.tokens) as n offset 0) u
where x.scope = y.scope and (x.n + y.n - u.n)::float8 / u.n >= %(t)s::float8;

-- name: involved
-- the rows that have a copy or a near one, the survivors first
select r.scope, r.key, r.hash, r.s from pg_temp.dbops_rows r
where r.s = any (%(sets)s::int[]) or r.s in (select c.s from pg_temp.dbops_rows c where c.s is not null group by c.s having pg_catalog.count(*) > 1)
order by r.scope, r.rank;

-- name: counts
select pg_catalog.count(*), pg_catalog.count(*) filter (where r.words is null) from pg_temp.dbops_rows r;

-- name: oversized_rows
select r.scope, r.key from pg_temp.dbops_rows r where r.words is null order by r.rank limit 1000;

-- name: saved
select pg_catalog.count(*), pg_catalog.count(*) filter (where v.undone_at is null) from dbops.hygiene_saved v where v.batch = %(batch)s::uuid;

-- name: saved_part
-- the rows that are not undone, a portion: their keys, and the columns that they had
select v.seq, v.key::text, array(select k.name from pg_catalog.jsonb_object_keys(v.before) k(name) order by k.name) from dbops.hygiene_saved v
where v.batch = %(batch)s::uuid and v.undone_at is null and v.seq > %(after)s::bigint order by v.seq limit %(limit)s;

-- name: restored
update dbops.hygiene_saved set undone_at = pg_catalog.clock_timestamp() where batch = %(batch)s::uuid and seq = any (%(seqs)s::bigint[]);
