-- The triggers that keep the word sets run as the owner of the tables, whom FORCE ROW LEVEL SECURITY binds as well; within triggers
-- he reads the memories. No definition can name him: each installation has another.
do $$
begin
  drop policy if exists keeper on public.memory_tokens;
  drop policy if exists keeper on public.user_memories;
  execute (
    select pg_catalog.string_agg(pg_catalog.format('create policy keeper on public.%I %s', c.relname,
      pg_catalog.format(case c.relname when 'memory_tokens' then 'to %I using (true) with check (true)'
        else 'for select to %I using (pg_catalog.pg_trigger_depth() > 0)' end, pg_catalog.pg_get_userbyid(c.relowner))), '; ')
    from pg_catalog.pg_class c
    where c.relname operator(pg_catalog.=) any ('{memory_tokens,user_memories}') and c.relnamespace operator(pg_catalog.=) 'public'::pg_catalog.regnamespace);
end
$$;
