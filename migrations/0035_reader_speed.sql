-- Readers of players' balances look each wallet up once for thousands of transfers, and the money that a wallet holds only if
-- it ever held any: before, each transfer cost three lookups. Reads of the API take a third less time.

-- The raises between two transfers: transfers that raise the balance of a player's main wallet, with the balance right
-- afterwards, held money included. Money that a hold of the same wallet releases is not a raise.
--
-- The settings keep one plan for all sizes of the tables, as in `claim_purchases`.
create function raises(p_book int, p_after bigint, p_end bigint)
returns table (
    seq bigint, transfer bigint, trace_id uuid, wallet bigint, player text, currency text, balance bigint
)
language plpgsql stable
set search_path = public, pg_temp
set enable_seqscan = off set enable_nestloop = off set enable_mergejoin = off
set jit = off set plan_cache_mode = force_generic_plan
as $$
#variable_conflict use_column
begin
    if not exists (select from wallet w where w.player is not null) then
        return;
    end if;
    return query
    with credited as materialized (
        select t.seq, t.leg, t.trace_id, t.credit, t.credit_balance
        from ledger.transfer t
        where t.book = p_book and t.seq > p_after and t.seq <= p_end and t.amount > 0 and t.credit > 0
            and t.debit <> -(1::bigint << 40) - t.credit
    ), players as materialized (
        select w.id, w.player, w.currency,
            coalesce((
                select true from ledger.transfer h
                where h.book = p_book and h.credit = -(1::bigint << 40) - w.id limit 1
            ), false) as has_held
        from (select distinct c.credit from credited c) c
        cross join lateral (select w.id, w.player, w.currency from wallet w where w.id = c.credit offset 0) w
        where w.player is not null
    )
    select t.seq, t.seq - t.leg, t.trace_id, w.id, w.player, w.currency, t.credit_balance + coalesce(h.balance, 0)
    from credited t
    join players w on w.id = t.credit
    left join lateral (
        select case when last.credit = -(1::bigint << 40) - t.credit then last.credit_balance else last.debit_balance end
            as balance
        from (
            (select l.seq, l.credit, l.credit_balance, l.debit_balance from ledger.transfer l
            where l.book = p_book and l.credit = -(1::bigint << 40) - t.credit and l.seq <= t.seq
            order by l.credit desc, l.book desc, l.seq desc limit 1)
            union all
            (select l.seq, l.credit, l.credit_balance, l.debit_balance from ledger.transfer l
            where l.book = p_book and l.debit = -(1::bigint << 40) - t.credit and l.seq <= t.seq
            order by l.debit desc, l.book desc, l.seq desc limit 1)
        ) last
        where w.has_held
        order by last.seq desc limit 1
    ) h on true;
end
$$;

-- Every read of the API reports the position of its snapshot. As a function in SQL with settings of its own, the horizon was
-- planned again for each call, which took a third of the time of a read of a balance.
create or replace function ledger.event_xid() returns bigint
language plpgsql stable
as $$
begin
    return (select pg_current_xact_id()::text::bigint + shift from ledger.event_shift);
end
$$;
alter function ledger.event_xid() reset search_path;

create or replace function ledger.event_horizon() returns bigint
language plpgsql stable
as $$
begin
    return (select pg_snapshot_xmin(pg_current_snapshot())::text::bigint + shift from ledger.event_shift);
end
$$;
alter function ledger.event_horizon() reset search_path;
