-- severity: warning
-- summary: A vector index whose operator is not the one that queries use
-- why: An index with vector_l2_ops serves <-> alone: ORDER BY ... <=> reads the whole table. What queries use is read from pg_stat_statements.
-- requires: extension vector
-- needs: extension pg_stat_statements
-- needs: role pg_read_all_stats
with
-- include: mine
select x.name as object, true as readable, m.relname::text as relation, o.oprname::text as operator, x.relname::text as index,
  array(select distinct b.oprname::text from pg_catalog.pg_index j join pg_catalog.pg_class y on y.oid = j.indexrelid
          cross join lateral pg_catalog.unnest(j.indclass) as q (oid)
          join pg_catalog.pg_opclass oc on oc.oid = q.oid join pg_catalog.pg_amop ap on ap.amopfamily = oc.opcfamily and ap.amoppurpose = 'o'
          join pg_catalog.pg_operator b on b.oid = ap.amopopr
        where j.indrelid = m.oid and j.indisvalid)::text as served
from pg_catalog.pg_index i join mine x on x.oid = i.indexrelid join mine m on m.oid = i.indrelid join pg_catalog.pg_am am on am.oid = x.relam
  cross join lateral pg_catalog.unnest(i.indclass) as c (oid)
  join pg_catalog.pg_opclass oc on oc.oid = c.oid
  join pg_catalog.pg_amop ap on ap.amopfamily = oc.opcfamily and ap.amoppurpose = 'o'
  join pg_catalog.pg_operator o on o.oid = ap.amopopr
where am.amname in ('hnsw', 'ivfflat') and i.indisvalid and pg_catalog.pg_stat_get_numscans(x.oid) = 0

-- each
select {object}::text as object,
  pg_catalog.format('it serves %s and was never used; %s calls on %s use %s', {operator}, pg_catalog.sum(s.calls), {relation}, used.operator) as message,
  pg_catalog.format('-- CREATE INDEX CONCURRENTLY with the class of %s (vector_cosine_ops for <=>, vector_l2_ops for <->, vector_ip_ops for <#>); then DROP INDEX CONCURRENTLY %s;',
                    used.operator, {object}) as fix, 'warning' as severity
from {pg_stat_statements}.pg_stat_statements s
  cross join (values ('<->'), ('<=>'), ('<#>'), ('<+>')) as used (operator)
where s.dbid = (select d.oid from pg_catalog.pg_database d where d.datname = pg_catalog.current_database())
  and s.query ~ ('\m' || {relation} || '\M') and s.query ~* 'order\s+by' and pg_catalog.strpos(s.query, used.operator) > 0
  and not used.operator = any ({served}::text[])
group by used.operator
