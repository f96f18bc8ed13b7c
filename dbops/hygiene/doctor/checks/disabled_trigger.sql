-- severity: warning
-- summary: A trigger or rule that does not fire
-- why: Somebody switched it off for a bulk load and forgot it, perhaps. What it kept true is no longer kept. An error where it is one of a
--   foreign key. One that fires on replicas only counts too.
with
-- include: mine
, off as (
  select m.name, t.tgname, t.tgisinternal, t.tgenabled, k.conname
  from pg_catalog.pg_trigger t join mine m on m.oid = t.tgrelid left join pg_catalog.pg_constraint k on k.oid = t.tgconstraint
  where t.tgenabled in ('D', 'R') and t.tgparentid = 0
)
select pg_catalog.format('%s.%I', name, tgname) as object,
  case tgenabled when 'R' then 'the trigger fires on replicas only' else 'the trigger is switched off' end as message,
  pg_catalog.format('ALTER TABLE %s ENABLE TRIGGER %I;', name, tgname) as fix, 'warning' as severity
from off where not tgisinternal
union all
select distinct pg_catalog.format('%s.%I', name, conname), 'the triggers of this foreign key are switched off: nothing keeps it true',
  pg_catalog.format('ALTER TABLE %s ENABLE TRIGGER ALL;', name), 'error'
from off where tgisinternal
union all
select pg_catalog.format('%s.%I', m.name, r.rulename), 'the rule is switched off', pg_catalog.format('ALTER TABLE %s ENABLE RULE %I;', m.name, r.rulename), 'warning'
from pg_catalog.pg_rewrite r join mine m on m.oid = r.ev_class where r.ev_enabled in ('D', 'R')
union all
select pg_catalog.format('event trigger %s', e.evtname), 'it is switched off', pg_catalog.format('ALTER EVENT TRIGGER %I ENABLE;', e.evtname), 'warning'
from pg_catalog.pg_event_trigger e where e.evtenabled in ('D', 'R')
