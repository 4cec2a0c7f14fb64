-- From PostgreSQL 16 on, who makes a role may hand it out, but becomes it only after handing it to itself.

do $$
begin
    if current_setting('server_version_num')::int < 160000
        or not exists (select from pg_roles where rolname = 'revwallet_app') then
        return;
    end if;
    if not pg_has_role(current_user, 'revwallet_app', 'set') then
        execute format('grant revwallet_app to %I', current_user);
    end if;
exception
    when insufficient_privilege then
        raise notice 'this user may not become revwallet_app, so only triggers keep the ledger append-only';
end
$$;
