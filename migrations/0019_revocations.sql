-- Revocations as events, so that open WebSocket connections of every process learn of them in order and at once.
-- Triggers, because a session ends in many ways: a sign-out, a changed password, a restore, an operator.

create function announce_ended_sessions() returns trigger
language plpgsql as $$
begin
    -- A connection knows itself when its session expires.
    insert into ledger.event (book, topic, body)
    select 1, 'internal:revoked', json_build_object('session', id) from ended where expires_at > now();
    if found then
        perform pg_notify('event', '1');
    end if;
    return null;
end
$$;

create trigger session_ended after delete on session
    referencing old table as ended
    for each statement execute function announce_ended_sessions();

create function announce_revoked_key() returns trigger
language plpgsql as $$
begin
    insert into ledger.event (book, topic, body)
    values (1, 'internal:revoked', json_build_object('api_key', new.id));
    perform pg_notify('event', '1');
    return null;
end
$$;

create trigger api_key_revoked after update of revoked_at on api_key
    for each row when (old.revoked_at is null and new.revoked_at is not null)
    execute function announce_revoked_key();

-- A user with another role has other rights: the connections authenticate again.
create function announce_changed_role() returns trigger
language plpgsql as $$
begin
    insert into ledger.event (book, topic, body)
    select 1, 'internal:revoked', json_build_object('session', id) from session
    where app_user = new.id and expires_at > now();
    if found then
        perform pg_notify('event', '1');
    end if;
    return null;
end
$$;

create trigger app_user_role_changed after update of role on app_user
    for each row when (old.role is distinct from new.role)
    execute function announce_changed_role();
