-- severity: warning
-- summary: A table without a primary key
-- why: Nothing keeps a row from being there twice, tools cannot name one row, and logical replication cannot send UPDATE or DELETE.
--   In a publication that sends those it is an error: the server refuses them.
with
-- include: mine
select m.name as object,
  case when refused.it then 'no primary key and no replica identity, but published: UPDATE and DELETE fail'
       else 'no primary key' end as message,
  case when ready.relname is not null then pg_catalog.format('ALTER TABLE %s ADD PRIMARY KEY USING INDEX %I;', m.name, ready.relname)
       else pg_catalog.format('ALTER TABLE %s ADD COLUMN id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY; -- rewrites the table', m.name) end as fix,
  case when refused.it then 'error' else 'warning' end as severity
from mine m
left join lateral (
  select c.relname from pg_catalog.pg_index i join pg_catalog.pg_class c on c.oid = i.indexrelid
    join pg_catalog.pg_am am on am.oid = c.relam
  where i.indrelid = m.oid and m.relkind = 'r' and i.indisunique and i.indisvalid and i.indpred is null and i.indexprs is null
    and i.indimmediate and am.amname = 'btree'
    and not exists (select from pg_catalog.pg_constraint k where k.conindid = i.indexrelid and k.contype in ('u', 'x'))
    and not exists (select from pg_catalog.pg_attribute a
                    where a.attrelid = m.oid and a.attnum = any (i.indkey::int2[]) and not a.attnotnull)
  order by i.indnatts, i.indexrelid limit 1
) ready on true
cross join lateral (
  select m.relreplident in ('d', 'n') and exists (
    select from pg_catalog.pg_publication p
    where (p.pubupdate or p.pubdelete)
      and (p.puballtables or exists (select from pg_catalog.pg_publication_tables t
                                     where t.pubname = p.pubname and t.schemaname = m.nspname and t.tablename = m.relname))
  ) as it
) refused
where m.relkind in ('r', 'p') and not m.relispartition
  and not exists (select from pg_catalog.pg_constraint k where k.conrelid = m.oid and k.contype = 'p')
