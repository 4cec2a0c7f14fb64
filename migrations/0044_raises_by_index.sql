-- As before, but with plans that hold for all sizes of the tables. A session keeps the plan of its first call, and a plan that was made
-- while the book was almost empty read the whole book at every call: once for the transfers, by the index of the credited accounts, and
-- once for each player, for money that a hold of the player's wallet may have held. The order leaves the first only the index of the
-- numbers, and `book + 0`, which is in no index, leaves the others only the indexes of the accounts.
create or replace function raises(p_book int, p_after bigint, p_end bigint)
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
        select t.seq, coalesce(t.home, t.seq) - t.leg as transfer, t.trace_id, t.credit, t.credit_balance
        from ledger.transfer t
        where t.book = p_book and t.seq > p_after and t.seq <= p_end and t.amount > 0 and t.credit > 0
            and t.credit >> 44 = p_book - 1
            and t.debit <> -(1::bigint << 40) - t.credit
        order by t.seq
    ), players as materialized (
        select w.id, w.player, w.currency,
            coalesce((
                select true from ledger.transfer h
                where h.book + 0 = p_book and h.credit = -(1::bigint << 40) - w.id limit 1
            ), false) as has_held
        from (select distinct c.credit from credited c) c
        cross join lateral (select w.id, w.player, w.currency from wallet w where w.id = c.credit offset 0) w
        where w.player is not null
    )
    select t.seq, t.transfer, t.trace_id, w.id, w.player, w.currency, t.credit_balance + coalesce(h.balance, 0)
    from credited t
    join players w on w.id = t.credit
    left join lateral (
        select case when last.credit = -(1::bigint << 40) - t.credit then last.credit_balance else last.debit_balance end
            as balance
        from (
            (select l.seq, l.credit, l.credit_balance, l.debit_balance from ledger.transfer l
            where l.book + 0 = p_book and l.credit = -(1::bigint << 40) - t.credit and l.seq <= t.seq
            order by l.credit desc, l.book desc, l.seq desc limit 1)
            union all
            (select l.seq, l.credit, l.credit_balance, l.debit_balance from ledger.transfer l
            where l.book + 0 = p_book and l.debit = -(1::bigint << 40) - t.credit and l.seq <= t.seq
            order by l.debit desc, l.book desc, l.seq desc limit 1)
        ) last
        where w.has_held
        order by last.seq desc limit 1
    ) h on true;
end
$$;
