-- db on host:5432
-- dbops_policy: the schema of the helpers
CREATE SCHEMA IF NOT EXISTS "dbops_policy";
-- dbops_policy: the helper is not there
create or replace function …;
-- dbops_policy: only those whom a policy makes call it
REVOKE EXECUTE ON FUNCTION "dbops_policy"."tenants of x"(roles text[]) FROM PUBLIC;
-- dbops_policy: only those whom a policy makes call it
GRANT EXECUTE ON FUNCTION "dbops_policy"."tenants of x"(roles text[]) TO "authenticated";
-- public.notes: row level security holds for the owner too
-- was: disabled
ALTER TABLE "public"."notes" ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY;
-- My.schema.Ta"ble: row level security holds for the owner too
-- was: enabled, not forced
ALTER TABLE "My.schema"."Ta""ble" FORCE ROW LEVEL SECURITY;
-- public.notes: no rule allows it
REVOKE TRUNCATE ON "public"."notes" FROM PUBLIC;
-- public.notes: no rule allows it
REVOKE SELECT, TRUNCATE ON "public"."notes" FROM "anon";
-- My.schema.Ta"ble: no rule allows it
REVOKE TRUNCATE ON "My.schema"."Ta""ble" FROM "anon";
-- public.notes: the policy is not there
CREATE POLICY "dbops_floor" ON "public"."notes" AS RESTRICTIVE FOR ALL TO "authenticated" USING (a = 1) WITH CHECK (a = 1);
-- public.notes: no definition makes it
-- was: CREATE POLICY "dbops_older" ON "public"."notes" AS PERMISSIVE FOR SELECT TO "authenticated" USING (a = 1)
DROP POLICY "dbops_older" ON "public"."notes";
-- public.notes: the policy is not there
CREATE POLICY "dbops_owner_update" ON "public"."notes" AS PERMISSIVE FOR UPDATE TO "authenticated" USING (a = 2) WITH CHECK (a = 3);
-- public.notes: the policy is not there
CREATE POLICY "dbops_owner_select" ON "public"."notes" AS PERMISSIVE FOR SELECT TO "authenticated" USING (a = 1);
-- My.schema.Ta"ble: the policy is not there
CREATE POLICY "Po""licy" ON "My.schema"."Ta""ble" AS PERMISSIVE FOR SELECT TO "O""dd", "anon" USING (a = 1);
-- public.notes: no definition makes it
-- was: CREATE POLICY "dbops_old" ON "public"."notes" AS RESTRICTIVE FOR SELECT TO "authenticated" USING (a = 1)
DROP POLICY "dbops_old" ON "public"."notes";
-- public.notes: the trigger is not there
CREATE TRIGGER "dbops_immutable" …;
-- public.v: it would read with its owner's rights
-- was: security_invoker = false
ALTER VIEW "public"."v" SET (security_invoker = true);
-- public.notes, My.schema.Ta"ble: a rule allows it
GRANT SELECT, UPDATE ON "public"."notes", "My.schema"."Ta""ble" TO "authenticated";
-- more.sql: more.sql was never applied
create policy p on notes;
-- not managed here: policy theirs on public.notes
-- proposed for public.notes: the policies read it
--   CREATE INDEX CONCURRENTLY "i" ON …
-- note: a note
-- note: public.notes: without the restrictive policy dbops_old, the permissive ones that stay open more
