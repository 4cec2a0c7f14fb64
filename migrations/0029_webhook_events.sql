-- Webhooks of events that move no money, such as a game that was added.

-- A webhook receives the events of this transaction and of later ones: all those before had ended when it was created.
alter table webhook add column from_xid bigint not null default ledger.event_horizon();

-- A delivery is about a wallet and one of its transfers, or about an event: of a user, or of nobody.
alter table delivery
    alter column wallet drop not null,
    alter column seq drop not null,
    add column app_user bigint,
    -- Trace of the request that caused the event.
    add column trace_id uuid,
    add constraint delivery_subject check (
        (wallet is null) = (seq is null) and (wallet is null or app_user is null)
    );

-- Deliveries of one subject are sent in order: a wallet, a user (negative), or everything else (zero).
create function delivery_subject(wallet bigint, app_user bigint) returns bigint
language sql immutable
as $$ select coalesce(wallet, -app_user, 0) $$;

drop index delivery_lane;
create index delivery_next on delivery (webhook, delivery_subject(wallet, app_user), id) where state = 'pending';

-- Deletes the oldest events from before a moment, at most about `p_max`, whole transactions only; returns how many.
create or replace function ledger.prune_events(p_book int, p_before timestamptz, p_max int) returns bigint
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
    -- Live readers have not come further than the horizon, and reads hand out this position: what follows it is still
    -- needed. Cursors with an event are those of durable readers of events.
    v_keep := least(v_keep, event_horizon(), (select min(seq) from cursor where book = p_book and event > 0));
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
