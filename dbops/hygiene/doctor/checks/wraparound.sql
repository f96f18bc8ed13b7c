-- severity: warning
-- summary: Transaction ids or multixacts that near their wraparound
-- why: The server stops taking writes about 3 million ids before 2 billion. Autovacuum freezes rows from autovacuum_freeze_max_age on: an age
--   far above it says that something holds it up, such as an old transaction, a slot, a prepared transaction, a corrupt table. An error
--   from 1,500 million on. Tables with the age of their database are named.
-- limit: million 500 transaction ids, from here on it is reported
-- applies: VACUUM (FREEZE)
with age as (
  select pg_catalog.format('database %s', d.datname) as object, greatest(pg_catalog.age(d.datfrozenxid), pg_catalog.mxid_age(d.datminmxid)) as age,
    pg_catalog.format('-- VACUUM (FREEZE) in the database %s', d.datname) as fix
  from pg_catalog.pg_database d
  union all
  (select c.oid::pg_catalog.regclass::text, greatest(pg_catalog.age(c.relfrozenxid), pg_catalog.mxid_age(c.relminmxid),
                                             pg_catalog.age(t.relfrozenxid), pg_catalog.mxid_age(t.relminmxid)) as age,
     pg_catalog.format('VACUUM (FREEZE) %s;', c.oid::pg_catalog.regclass)
   from pg_catalog.pg_class c left join pg_catalog.pg_class t on t.oid = c.reltoastrelid
   where c.relkind in ('r', 'm') and c.relpersistence <> 't' order by age desc limit 20)
)
select object, pg_catalog.format('the oldest ids are %s million transactions old; at 2,147 million the server stops', pg_catalog.round(age / 1e6, 1)) as message, fix,
  case when age >= 1500000000 then 'error' else 'warning' end as severity
from age where age >= {million} * 1000000
