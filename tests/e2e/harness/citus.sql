-- Distributes the tables of the ledger by book over the workers of a Citus cluster. The small tables that describe books and partitions are copied to every server.
do $$
declare
    v_table text;
begin
    if not exists (select from pg_dist_node where isactive and groupid <> 0) then
        raise exception 'the cluster has no server besides the coordinator; add one with citus_add_node' using errcode = '55000';
    end if;
    perform set_config('citus.multi_shard_modify_mode', 'sequential', true);
    if not exists (select from pg_dist_partition where logicalrelid = 'ledger.book'::regclass) then
        perform create_reference_table('ledger.book');
        -- Without this constraint, because Citus would replace the table at the other end, and with it the views that read it.
        alter table ledger.archive drop constraint archive_first_seq_fkey;
        perform create_reference_table('ledger.partition');
        perform create_reference_table('ledger.archive');
        alter table ledger.archive
            add constraint archive_first_seq_fkey foreign key (first_seq) references ledger.partition (first_seq);
    end if;
    foreach v_table in array array['seal', 'account', 'posting', 'transfer', 'transfer_copy'] loop
        if not exists (select from pg_dist_partition where logicalrelid = format('ledger.%I', v_table)::regclass) then
            perform create_distributed_table(
                format('ledger.%I', v_table), 'book',
                colocate_with => case when v_table = 'seal' then 'none' else 'ledger.seal' end);
        end if;
    end loop;
    -- A transaction that changes a table of which each server has a copy must use one connection to each server.
    foreach v_table in array array[
        'ledger.create_books(int, bigint)', 'ledger.create_book(int, text, bigint)', 'ledger.create_partition(bigint, bigint)',
        'ledger.extend_partitions(bigint)', 'ledger.begin_archive(bigint)', 'ledger.finish_archive(bigint)',
        'ledger.restore_partition(bigint)'
    ] loop
        execute format('alter function %s set citus.multi_shard_modify_mode = sequential', v_table);
    end loop;
    -- The coordinator connects to the other servers as the role that runs a statement.
    if exists (select from pg_roles where rolname = 'revwallet_app' and not rolcanlogin) then
        alter role revwallet_app login;
    end if;
end
$$;

-- The function of the leaderboards of balances. It reads the wallets here and the transfers on the server of the book, so the two
-- cannot be joined.
create or replace function raises(p_book int, p_after bigint, p_end bigint)
returns table (
    seq bigint, transfer bigint, trace_id uuid, wallet bigint, player text, currency text, balance bigint
)
language plpgsql stable
set search_path = public, pg_temp
set jit = off set plan_cache_mode = force_custom_plan
as $$
#variable_conflict use_column
declare
    v_seq bigint[];
    v_transfer bigint[];
    v_trace uuid[];
    v_wallet bigint[];
    v_balance bigint[];
    v_held bigint[];
begin
    if not exists (select from wallet w where w.player is not null) then
        return;
    end if;
    select
        array_agg(t.seq order by t.seq), array_agg(coalesce(t.home, t.seq) - t.leg order by t.seq),
        array_agg(t.trace_id order by t.seq), array_agg(t.credit order by t.seq), array_agg(t.credit_balance order by t.seq)
    into v_seq, v_transfer, v_trace, v_wallet, v_balance
    from ledger.transfer t
    where t.book = p_book and t.seq > p_after and t.seq <= p_end and t.amount > 0 and t.credit > 0
        and t.credit >> 44 = p_book - 1
        and t.debit <> -(1::bigint << 40) - t.credit;
    select array_agg(coalesce(h.balance, 0) order by c.n) into v_held
    from unnest(v_wallet, v_seq) with ordinality c (wallet, seq, n)
    left join lateral (
        select case when last.credit = -(1::bigint << 40) - c.wallet then last.credit_balance else last.debit_balance end
            as balance
        from (
            (select l.seq, l.credit, l.credit_balance, l.debit_balance from ledger.transfer l
            where l.book = p_book and l.credit = -(1::bigint << 40) - c.wallet and l.seq <= c.seq
            order by l.seq desc limit 1)
            union all
            (select l.seq, l.credit, l.credit_balance, l.debit_balance from ledger.transfer l
            where l.book = p_book and l.debit = -(1::bigint << 40) - c.wallet and l.seq <= c.seq
            order by l.seq desc limit 1)
        ) last
        order by last.seq desc limit 1
    ) h on true;
    return query
    select c.seq, c.transfer, c.trace, w.id, w.player, w.currency, c.balance + c.held
    from unnest(v_seq, v_transfer, v_trace, v_wallet, v_balance, v_held) c (seq, transfer, trace, wallet, balance, held)
    join wallet w on w.id = c.wallet
    where w.player is not null;
end
$$;
