-- Positions: the header Book-Position of every read, and the replay of what was missed since.
--
-- A position is `p1.<epoch>.<seq>.<batch>.<xid>.<event>`: the installation, which is renewed after a restore; the newest
-- transfer that the read takes into account, and the batch of its seal, which differs if a failover lost it; and the place
-- in the event table: events after (xid, event) are missing from the read.

-- In PL/pgSQL, because its plans are kept for the session: a function in SQL is planned again by every statement.
create function ledger.read_position(p_book int) returns text
language plpgsql stable
as $$
begin
    return (
        select concat_ws('.',
            'p1',
            left(replace(i.id::text, '-', ''), 16),
            s.seq,
            left(replace(s.batch_id::text, '-', ''), 12),
            ledger.event_horizon(),
            0)
        from public.installation i
        cross join (
            select seq, batch_id from ledger.seal where book = p_book order by seq desc limit 1
        ) s
    );
end
$$;

-- Events are kept for `--event-retention`. All events of the transactions up to this one were deleted.
create table ledger.event_pruned (
    book int not null constraint event_pruned_pkey primary key,
    xid bigint not null
);

-- Deleting is for `ledger.prune_events` only, which says so for its transaction.
create function ledger.refuse_event_change() returns trigger
language plpgsql as $$
begin
    if tg_op = 'DELETE' and current_setting('revwallet.prunes_events', true) = 'on' then
        return null;
    end if;
    raise exception 'ledger.event is append-only' using errcode = 'RW000';
end
$$;

drop trigger event_is_append_only on ledger.event;
create trigger event_is_append_only before update or delete or truncate on ledger.event
    for each statement execute function ledger.refuse_event_change();
alter table ledger.event enable always trigger event_is_append_only;

-- Deletes the oldest events from before a moment, at most about `p_max`, whole transactions only; returns how many.
create function ledger.prune_events(p_book int, p_before timestamptz, p_max int) returns bigint
language plpgsql security definer
set search_path = ledger, pg_catalog, pg_temp
as $$
declare
    v_keep bigint;
    v_deleted bigint;
begin
    with oldest as (
        select xid, at from event where book = p_book order by xid, id limit p_max
    )
    select coalesce(min(xid) filter (where at >= p_before), max(xid)) into v_keep from oldest;
    if v_keep is null then
        return 0;
    end if;
    -- Readers have not come further than this, and reads hand out this position: what follows it is still needed.
    v_keep := least(v_keep, event_horizon());
    perform set_config('revwallet.prunes_events', 'on', true);
    delete from event where book = p_book and xid < v_keep and at < p_before;
    get diagnostics v_deleted = row_count;
    perform set_config('revwallet.prunes_events', 'off', true);
    if v_deleted > 0 then
        insert into event_pruned (book, xid) values (p_book, v_keep - 1)
        on conflict (book) do update set xid = greatest(event_pruned.xid, excluded.xid);
    end if;
    return v_deleted;
end
$$;

revoke all on function ledger.read_position, ledger.prune_events from public;

do $$
begin
    if exists (select from pg_roles where rolname = 'revwallet_app') then
        grant select on ledger.event_pruned to revwallet_app;
        grant execute on function ledger.read_position, ledger.prune_events to revwallet_app;
    end if;
end
$$;
